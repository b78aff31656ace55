"""``tumorbench check-cohort`` and ``tumorbench report``."""

from pathlib import Path
from typing import Annotated

import typer

_Keys = list[str] | None


def check_cohort(
    file: Annotated[
        Path, typer.Argument(help="Table with the standard columns (.csv) or description (.yml).")
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the scans of a table; else that of the table.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Page; else FILE with -check.html.")] = None,
) -> None:
    """Check a cohort of your own and write a page, before anything is computed.

    A fault in the table ends the check with its file, row and column. Faults of scans and seeds
    are listed in the page and on the screen; the exit status is then 1.
    """
    from tumorbench_book import reports

    page = f"{file.stem}-check.html"
    target = reports.target(out or file.parent, page)
    made = reports.make("check_cohort", path=str(file), images=images and str(images))
    for line in made.record["faults"]:
        typer.echo(f"fault: {line}", err=True)
    for line in made.record["remarks"]:
        typer.echo(f"remark: {line}")
    counts = [f"{made.record['counts'][name]} {name}" for name in ("lesions", "scans", "patients")]
    faults = made.record["faults"]
    typer.echo(f"{', '.join(counts)}; {len(faults)} faults, {len(made.record['remarks'])} remarks")
    typer.echo(reports.write(made.html, target))
    if faults:
        raise typer.Exit(1)


def report(
    name: Annotated[
        str, typer.Argument(help="Key of a model or a cohort, or the description of one (.yml).")
    ],
    own: Annotated[
        list[Path] | None,
        typer.Option(help="File that brings your own: .py that registers, or .yml."),
    ] = None,
    cohort: Annotated[_Keys, typer.Option(help="Only this cohort; may be repeated.")] = None,
    model: Annotated[_Keys, typer.Option(help="Only this model; may be repeated.")] = None,
    edition: Annotated[str | None, typer.Option(help="Else TUMORBENCH_EDITION.")] = None,
    out: Annotated[Path | None, typer.Option(help="Page; else NAME-report.html here.")] = None,
) -> None:
    """Write a report of a model or a cohort: one page with figures, methods and tables to save.

    Your own model: a Python file that calls models.register, run first (--own my_model.py). Your
    own cohort: its description (my_cohort.yml), which is checked first.
    """
    from tumorbench_book import reports

    target = reports.target(out or Path(), f"{Path(name).stem}-report.html")
    made = reports.make(
        "report",
        name=name,
        own=[str(file) for file in own or []],
        only_cohorts=cohort or None,
        only_models=model or None,
        edition=edition,
    )
    for note in made.record["notes"]:
        typer.echo(f"not computed: {note}", err=True)
    typer.echo(reports.write(made.html, target))
