"""``tumorbench weights list|fetch|verify``."""

from typing import Annotated

import typer

weights = typer.Typer(
    help="Released checkpoints: list them with their licences, fetch them, check them.",
    no_args_is_help=True,
)

Name = typer.Argument(help="Keys of models, for example suprem.")


@weights.command("list")
def list_() -> None:
    """Show source, file, size, licence, what it allows and gate of every checkpoint."""
    from tumorbench_utils.models.weights import overview

    for name, row in overview().iterrows():
        size = f"{row['bytes'] / 1e6:,.0f} MB"
        if row.isna()["bytes"]:
            size = f"size not known, encoder {row['encoder_bytes'] / 1e6:,.0f} MB"
        state = "here" if row["here"] else "not here"
        typer.echo(f"{name}: {row['file']} ({size}, {row['access']}, {state})")
        for fact in ("source", "licence", "allows", "gate"):
            if row[fact]:
                typer.echo(f"    {fact:<8} {row[fact]}")


@weights.command()
def fetch(names: Annotated[list[str], Name]) -> None:
    """Download checkpoints that are not here yet and print their paths."""
    from tumorbench_utils import models
    from tumorbench_utils.models import weights as store

    failed = []
    for name, card in [(name, models.get_model(name).card) for name in names]:
        typer.echo(f"{name}: {card.licence}. Allows: {card.allows}", err=True)
        try:
            typer.echo(store.fetch(name))
        except store.WeightsError as error:
            failed.append(str(error))
    if failed:
        raise store.WeightsError("\n".join(failed))


@weights.command()
def verify(names: Annotated[list[str] | None, Name] = None) -> None:
    """Hold checkpoints against the checksums that were recorded when they were first seen."""
    from tumorbench_utils import models
    from tumorbench_utils.models import weights as store

    states = {name: store.verify(name) for name in names or models.MODELS}
    for name, state in states.items():
        typer.echo(f"{name}: {state}")
    bad = [n for n, s in states.items() if s == "changed" or (names and s == "absent")]
    if bad:
        raise store.WeightsError(f"changed or absent: {', '.join(bad)}; see {store.lock_file()}")
