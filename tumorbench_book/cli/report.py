"""``tumorbench report``."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    name: Annotated[
        str, typer.Argument(help="Key of a model or a cohort, or the description of one (.yml).")
    ],
    own: Annotated[
        list[Path] | None,
        typer.Option(help="File that brings your own: .py that registers, or .yml."),
    ] = None,
    cohort: Annotated[
        list[str] | None, typer.Option(help="Only this cohort; may be repeated.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model; may be repeated.")
    ] = None,
    edition: Annotated[str | None, typer.Option(help="Else TUMORBENCH_EDITION.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; else NAME-report here.")] = None,
) -> None:
    """Write a report of a model or a cohort: one page, and the tables beside it.

    Your own model: a Python file that calls models.register, run first (--own my_model.py). Your
    own cohort: its description (my_cohort.yml).
    """
    import runpy

    from tumorbench_utils import report as reports
    from tumorbench_utils import settings
    from tumorbench_utils.cohorts import COHORTS, describe, register
    from tumorbench_utils.models import MODELS

    brought = [*(own or [])]
    if Path(name).suffix in (".yml", ".yaml"):
        brought.append(Path(name))
        name = describe(name)[0].key
    for file in brought:
        if file.suffix in (".yml", ".yaml"):
            register(*describe(file))
        elif not file.is_file():
            raise FileNotFoundError(f"{file}: there is no such file")
        else:
            runpy.run_path(str(file))
    if name in MODELS and not model:
        made = reports.of_model(name, cohort, edition)
    elif name in COHORTS and not cohort:
        made = reports.of_cohort(name, model, edition)
    elif name in MODELS or name in COHORTS:
        raise ValueError("--cohort goes with a model, --model with a cohort")
    else:
        said = settings.unknown("model or cohort", name, [*MODELS, *COHORTS])
        raise KeyError(f"{said}; the file that brings your own goes to --own")
    for note in made.notes:
        typer.echo(f"not computed: {note}", err=True)
    typer.echo(made.write(out or Path(f"{name}-report")))
