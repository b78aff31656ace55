"""``tumorbench cohorts``: list, fetch, plan and check."""

from typing import Annotated

import typer

cohorts = typer.Typer(no_args_is_help=True, help="Cohorts: list them, get them, check them.")

Name = Annotated[str, typer.Argument(help="Key of a cohort, for example luna16.")]


def _print(title: str, header: list[str], rows: list[list]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        table.add_column(name, no_wrap=i == 0)
    for row in rows:
        table.add_row(*(f"{v:,.1f}" if isinstance(v, float) else str(v) for v in row))
    Console().print(table)


@cohorts.command("list")
def list_() -> None:
    """List the cohorts: what is predicted on how many, and the licence of the images."""
    from tumorbench_utils.cohorts import COHORTS

    rows = [
        [c.key, c.organ, c.endpoint, c.expected.get("rows", ""), c.licence]
        for c in COHORTS.values()
    ]
    _print("Cohorts", ["key", "organ", "endpoint", "lesions", "licence"], rows)


@cohorts.command()
def fetch(
    name: Name,
    images: Annotated[bool, typer.Option("--images", help="The images too (gigabytes).")] = False,
) -> None:
    """Download the released tables of a cohort, and its images if asked for."""
    from tumorbench_book.archives import fetch_images, fetch_released

    data = fetch_released(name)
    typer.echo(f"{name}: the released tables are in {data / 'cohorts' / 'released'}")
    if images:
        typer.echo(f"{name}: the images are in {fetch_images(name)}")
    typer.echo(f"export TUMORBENCH_DATA={data}")


@cohorts.command()
def plan(name: Name) -> None:
    """Say, without a network, which images a cohort needs and how large they are."""
    from tumorbench_book.archives import ZENODO
    from tumorbench_utils.cohorts import card
    from tumorbench_utils.cohorts.images import summary

    known = card(name)
    frame = summary(name)
    header = ["role", "pairing", "series", "patients", "gigabytes", "licence"]
    _print(f"{known.title}: images", header, frame[header].to_numpy().tolist())
    if name in ZENODO:
        records = ", ".join(f"https://zenodo.org/records/{r}" for r in ZENODO[name])
        typer.echo(f"Images come from Zenodo: {records}. Licence: {known.licence}.")
    else:
        typer.echo(f"Images come from the {known.access}. DOI {known.doi}.")


@cohorts.command()
def check(name: Name) -> None:
    """Read the released table of a cohort, check it, and list what is left out or odd."""
    from tumorbench_utils.cohorts import load_cohort

    table = load_cohort(name, "released").table
    typer.echo(
        f"{name}: {len(table)} lesions, {table['scan_id'].nunique()} scans, "
        f"{table['patient_id'].nunique()} patients"
    )
    for row in table.attrs.get("excluded", []):
        typer.echo(f"left out: {row['lesion_id']}: {row['reason']}")
    for row in table.attrs.get("anomalies", []):
        typer.echo(f"odd: {row['lesion_id']}: {row['column']} = {row['value']}: {row['note']}")
