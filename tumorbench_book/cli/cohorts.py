"""``tumorbench cohorts``: list, fetch, plan and check."""

from typing import Annotated

import typer

cohorts = typer.Typer(no_args_is_help=True, help="Cohorts: list them, get them, check them.")

Name = Annotated[str, typer.Argument(help="Key of a cohort, for example luna16.")]


@cohorts.command("list")
def list_() -> None:
    """List the cohorts: what is predicted on how many, and the licence of the images."""
    from tumorbench_utils.cohorts import COHORTS

    for key, card in COHORTS.items():
        typer.echo(f"{key}: {card.organ}, {card.expected.get('rows', 'not counted')} lesions")
        typer.echo(f"    endpoint  {card.endpoint}")
        typer.echo(f"    licence   {card.licence}")


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
    typer.echo(f"{known.title}: images")
    typer.echo(summary(name).to_string(index=False, float_format="{:,.1f}".format))
    source = f"the {known.access}. DOI {known.doi}"
    if name in ZENODO:
        records = ", ".join(f"https://zenodo.org/records/{r}" for r in ZENODO[name])
        source = f"Zenodo: {records}. Licence: {known.licence}"
    typer.echo(f"Images come from {source}.")


@cohorts.command()
def check(name: Name) -> None:
    """Read the released table of a cohort, check it, and list what is left out or odd."""
    from tumorbench_utils.cohorts import load_cohort

    table = load_cohort(name, "released").table
    scans, patients = (table[column].nunique() for column in ("scan_id", "patient_id"))
    typer.echo(f"{name}: {len(table)} lesions, {scans} scans, {patients} patients")
    for row in table.attrs.get("excluded", []):
        typer.echo(f"left out: {row['lesion_id']}: {row['reason']}")
    for row in table.attrs.get("anomalies", []):
        typer.echo(f"odd: {row['lesion_id']}: {row['column']} = {row['value']}: {row['note']}")
