"""``tumorbench encoders``."""

from typing import Annotated

import typer


def encoders(
    names: Annotated[
        list[str] | None, typer.Argument(help="Models by key.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw phantoms.")] = 2,
) -> None:
    """Train teaching encoders: those that are named, else those whose weights are missing."""
    import tumorbench_training as pretraining

    chosen = names or pretraining.missing()
    for name in chosen:
        card = pretraining.make_encoder(name, device=device, workers=workers)
        trained, untrained = (card["own"][kind][0] for kind in ("trained", "untrained"))
        typer.echo(
            f"{name}: {card['measure']}: {trained:.3f} (untrained {untrained:.3f}), "
            f"{card['minutes']:g} minutes"
        )
    if not chosen:
        typer.echo("all teaching encoders are there and whole; name one to train it again")
