"""``tumorbench check-cohort``."""

from pathlib import Path
from typing import Annotated

import typer


def check_cohort(
    file: Annotated[
        Path,
        typer.Argument(help="Table with the standard columns (.csv) or description (.yml)."),
    ],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the scans of a table; else that of the table.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Report; else FILE with -check.html.")] = None,
) -> None:
    """Check a cohort of your own and write a report, before anything is computed.

    A fault in the table ends the check with its file, row and column. Faults of scans and seeds
    are listed in the report and on the screen; the exit status is then 1.
    """
    from tumorbench_utils import check_cohort as checks

    found = checks.check(checks.read(file, images))
    for line in found.faults:
        typer.echo(f"fault: {line}", err=True)
    for line in found.remarks:
        typer.echo(f"remark: {line}")
    table = found.cohort.table
    typer.echo(
        f"{len(table)} lesions, {table['scan_id'].nunique()} scans, "
        f"{table['patient_id'].nunique()} patients; {len(found.faults)} faults, "
        f"{len(found.remarks)} remarks"
    )
    typer.echo(found.write(out or file.with_name(f"{file.stem}-check.html")))
    if found.faults:
        raise typer.Exit(1)
