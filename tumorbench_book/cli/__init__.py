"""The command line ``tumorbench``: each command is a few lines over the package."""

import os
import sys

import typer

from tumorbench_book.cli import (
    book,
    cohorts,
    embed,
    encoders,
    reports,
    results,
    weights,
)

cli = typer.Typer(
    name="tumorbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli.command("book")(book.book)
cli.add_typer(cohorts.cohorts, name="cohorts")
cli.add_typer(weights.weights, name="weights")
cli.command("embed")(embed.embed)
cli.command("import-released")(embed.import_released)
cli.add_typer(results.results, name="results")
cli.command("encoders")(encoders.encoders)
cli.command("check-cohort")(reports.check_cohort)
cli.command("report")(reports.report)


@cli.callback()
def _main() -> None:
    """Build the book, fetch cohorts and weights, compute embeddings, list results, report."""


def app() -> None:
    """Run the command line; expected errors become one line and exit status 1."""
    # No Python that a command starts (kernels, workers of Dask) imports from the working folder.
    os.environ["PYTHONSAFEPATH"] = "1"
    for name in ("TUMORBENCH_CACHE", "TUMORBENCH_DATA", "TUMORBENCH_WEIGHTS"):
        if os.environ.get(name):
            os.environ[name] = os.path.abspath(os.path.expanduser(os.environ[name]))
    try:
        cli()
    except (ValueError, KeyError, OSError, RuntimeError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(f"tumorbench: {text}", file=sys.stderr)
        raise SystemExit(1) from None
