"""``tumorbench book``."""

from typing import Annotated

import typer


def book(
    chapter: Annotated[
        list[str] | None, typer.Option(help="Only this chapter (PART/NAME); may be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Chapters that run at once.")] = 2,
    force: Annotated[bool, typer.Option(help="Run even what has not changed.")] = False,
) -> None:
    """Run the chapters that changed and build the pages; the last line is their path."""
    import signal

    import tumorbench_book as runner

    # A polite kill (make, timeout, a scheduler) ends the running chapters as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    index = runner.make(chapter or None, workers=workers, force=force)
    if index is None:
        for name in chapter or []:
            typer.echo(runner.executed_path(name))
    else:
        typer.echo(index)
