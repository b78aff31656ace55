"""The command line ``tumorbench``: each command is a few lines over the package."""

import os
import sys

from tumorbench_book.cli import cohorts, results, weights
from tumorbench_book.cli.commands import cli

cli.add_typer(cohorts.cohorts, name="cohorts")
cli.add_typer(weights.weights, name="weights")
cli.add_typer(results.results, name="results")


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
