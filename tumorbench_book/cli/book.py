"""``tumorbench book``."""

from typing import Annotated

import typer


def book(
    chapter: Annotated[
        list[str] | None, typer.Option(help="Only this chapter (PART/NAME); may be repeated.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Chapters that run at once.")] = 2,
    force: Annotated[bool, typer.Option(help="Run even what has not changed.")] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="NAME=VALUE for one chapter; may be repeated."),
    ] = None,
) -> None:
    """Run the chapters that changed and build the pages; the last line is their path."""
    import signal

    import tumorbench_book as runner

    # A polite kill (make, timeout, a scheduler) ends the running chapters as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if parameter:
        if len(chapter or []) != 1:
            raise typer.BadParameter("parameters go with one --chapter")
        typer.echo(runner.try_out(chapter[0], _values(parameter)))
        return
    index = runner.make(chapter or None, workers=workers, force=force)
    for path in [index] if index else map(runner.executed_path, chapter):
        typer.echo(path)


def _values(words: list[str]) -> dict:
    import yaml

    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not equals:
            raise typer.BadParameter(f"a parameter is NAME=VALUE, not {name}")
    return {name: yaml.safe_load(value) for name, _, value in pairs}
