"""``tumorbench weights list|fetch|verify``."""

from typing import Annotated

import typer

weights = typer.Typer(
    help="Released checkpoints: list them with their licences, fetch them, check them.",
    no_args_is_help=True,
)

_Names = Annotated[list[str] | None, typer.Argument(help="Keys of models, for example suprem.")]


@weights.command("list")
def list_weights() -> None:
    """Show source, file, size, licence, what it allows and gate of every checkpoint."""
    from tumorbench_utils.models import weights as store

    for name, row in store.overview().iterrows():
        size = f"size not known, encoder {row['encoder_bytes'] / 1e6:,.0f} MB"
        if not store.pd.isna(row["bytes"]):
            size = f"{row['bytes'] / 1e6:,.0f} MB"
        state = "here" if row["here"] else "not here"
        typer.echo(f"{name}: {row['file']} ({size}, {row['access']}, {state})")
        typer.echo(f"    source   {row['source']}")
        typer.echo(f"    licence  {row['licence']}")
        typer.echo(f"    allows   {row['allows']}")
        if row["gate"]:
            typer.echo(f"    gate     {row['gate']}")


@weights.command("fetch")
def fetch(names: _Names = None) -> None:
    """Download checkpoints that are not here yet and print their paths."""
    from tumorbench_utils import models
    from tumorbench_utils.models import weights as store

    if not names:
        raise ValueError(f"name the models to fetch; known are {', '.join(models.MODELS)}")
    cards = [models.get_model(name).card for name in names]
    failed = []
    for name, card in zip(names, cards, strict=True):
        typer.echo(f"{name}: {card.licence}. Allows: {card.allows}", err=True)
        try:
            typer.echo(store.fetch(name))
        except store.WeightsError as error:
            failed.append(str(error))
    if failed:
        raise store.WeightsError("\n".join(failed))


@weights.command("verify")
def verify(names: _Names = None) -> None:
    """Hold checkpoints against the checksums that were recorded when they were first seen."""
    from tumorbench_utils import models
    from tumorbench_utils.models import weights as store

    states = {name: store.verify(name) for name in names or models.MODELS}
    for name, state in states.items():
        typer.echo(f"{name}: {state}")
    bad = [n for n, s in states.items() if s == "changed" or (names and s == "absent")]
    if bad:
        raise store.WeightsError(f"changed or absent: {', '.join(bad)}; see {store.lock_file()}")
