"""The commands without subcommands: book, embed, import-released, encoders and the two reports.

What computes is imported where it is needed, so that ``tumorbench --help`` waits for nothing.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

cli = typer.Typer(
    name="tumorbench",
    help="Build the book, fetch cohorts and weights, compute embeddings, list results, report.",
    **{"no_args_is_help": True, "add_completion": False, "pretty_exceptions_enable": False},
)

_Some = list[str] | None
Cohorts = Annotated[_Some, typer.Argument(help="Cohorts by key.", show_default=False)]
Models = Annotated[_Some, typer.Option(help="Only this model; may be repeated.")]
Page = Annotated[Path | None, typer.Option(help="Page or its folder; else named by what it shows.")]


@cli.command()
def book(
    chapter: Annotated[_Some, typer.Option(help="Only this PART/NAME; may be repeated.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Chapters that run at once.")] = 2,
    force: Annotated[bool, typer.Option(help="Run even what has not changed.")] = False,
    parameter: Annotated[
        _Some, typer.Option("--parameter", "-p", help="NAME=VALUE for one chapter; repeatable.")
    ] = None,
) -> None:
    """Run the chapters that changed and build the pages; the last line is their path."""
    import signal

    import yaml

    from tumorbench_book import build, keys

    # A polite kill (make, timeout, a scheduler) ends the running chapters as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if parameter:
        if len(chapter or []) != 1 or not all("=" in word for word in parameter):
            raise typer.BadParameter("parameters are NAME=VALUE and go with one --chapter")
        pairs = [word.partition("=") for word in parameter]
        values = {name: yaml.safe_load(value) for name, _, value in pairs}
        typer.echo(build.try_out(chapter[0], values))
        return
    index = build.make(chapter or None, workers=workers, force=force)
    for path in [index] if index else map(keys.executed_path, chapter):
        typer.echo(path)


@cli.command()
def embed(
    cohorts: Cohorts = None,
    model: Models = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; else what is there.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running dask scheduler, in place of workers.")
    ] = None,
) -> None:
    """Embed cohorts (all of the edition if none is named); call again to go on after a crash."""
    from tumorbench_utils import embeddings, settings
    from tumorbench_utils.cohorts import COHORTS, load_cohort
    from tumorbench_utils.models import MODELS, get_model

    names = [get_model(name).key for name in model or MODELS]
    store = embeddings.default_store(settings.edition())
    loaded = [load_cohort(name) for name in cohorts or COHORTS]
    failed = 0
    with dask_client(workers, scheduler) as client:
        for cohort in loaded:
            report = embeddings.embed(cohort, names, store, client=client, device=device)
            typer.echo(f"{cohort.card.key}: {report}")
            failed += len(report.failed)
    typer.echo(store.root)
    if failed:
        raise typer.Exit(1)


def dask_client(workers: int, scheduler: str | None):
    """Return a context with a dask client, or with None where one process will do."""
    from tumorbench_utils import settings

    if scheduler is None and workers == 1:
        return contextlib.nullcontext()
    from distributed import Client

    if scheduler is not None:
        return Client(scheduler)
    if sys.version_info < (3, 11):  # knows no PYTHONSAFEPATH: workers import from where they start
        os.chdir(settings.BOOK_ROOT)
    return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)


@cli.command()
def import_released(
    cohorts: Cohorts = None,
    file: Annotated[Path | None, typer.Option(help="A file that is here already.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before downloads.")] = False,
) -> None:
    """Download, verify and convert the features that the authors released; sizes are shown first.

    Needs the released cohort tables in TUMORBENCH_DATA. Without a name, lists what there is.
    """
    from tumorbench_utils import downloads, embeddings, settings
    from tumorbench_utils.embeddings.load import import_into

    known = embeddings.released_files()
    for name in cohorts or known:
        if name not in known:
            raise KeyError(settings.unknown("cohort with released features", name, known))
        megabytes, file_name = known[name]["size"] / 1e6, Path(known[name]["path"]).name
        typer.echo(f"{megabytes:7.1f} MB  {file_name}  ({name})")
    if not cohorts:
        return
    store = embeddings.default_store("released")
    if file is None and not yes:
        total = sum(known[name]["size"] for name in cohorts) / 1e6
        typer.confirm(f"Download {total:.1f} MB, keep about as much in {store.root}?", abort=True)
    for name in cohorts:
        path = file or downloads.fetch(
            f"{settings.book_data('downloads')['features']['url']}/{known[name]['path']}",
            settings.cache_dir() / "released" / Path(known[name]["path"]).name,
            sha256=known[name]["sha256"],
            size=known[name]["size"],
        )
        frames = import_into(store, name, path)
        for model, frame in frames.items():
            left_out = len(frame.attrs["unmatched"])
            typer.echo(f"{name}/{model}: {len(frame)} lesions, {left_out} rows left out")
    typer.echo(store.root)


@cli.command()
def encoders(
    names: Annotated[_Some, typer.Argument(help="Models by key.", show_default=False)] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train teaching encoders: those that are named, else those whose weights are missing."""
    import tumorbench_training as training

    for name in (chosen := names or training.missing()):
        card = training.make_encoder(name, device=device, workers=2)
        trained, untrained = (card["own"][kind][0] for kind in ("trained", "untrained"))
        result = f"{card['measure']}: {trained:.3f} (untrained {untrained:.3f})"
        typer.echo(f"{name}: {result}, {card['minutes']:g} minutes")
    if not chosen:
        typer.echo("all teaching encoders are there and whole; name one to train it again")


@cli.command()
def check_cohort(
    file: Annotated[Path, typer.Argument(help="Table (.csv) or description (.yml) of a cohort.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the scans of a table; else that of the table.")
    ] = None,
    out: Page = None,
) -> None:
    """Check a cohort of your own and write a page, before anything is computed.

    A fault in the table ends the check with its file, row and column. Faults of scans and seeds
    are listed in the page and on the screen; the exit status is then 1.
    """
    from tumorbench_book import reports

    target = reports.target(out or file.parent, f"{file.stem}-check.html")
    made = reports.make("check_cohort", path=str(file), images=images and str(images))
    faults, remarks, n = (made.record[name] for name in ("faults", "remarks", "counts"))
    for line in faults:
        typer.echo(f"fault: {line}", err=True)
    for line in remarks:
        typer.echo(f"remark: {line}")
    counts = ", ".join(f"{n[name]} {name}" for name in ("lesions", "scans", "patients"))
    typer.echo(f"{counts}; {len(faults)} faults, {len(remarks)} remarks")
    typer.echo(reports.write(made.html, target))
    if faults:
        raise typer.Exit(1)


@cli.command()
def report(
    name: Annotated[str, typer.Argument(help="Key of a model or cohort, or a cohort's .yml.")],
    own: Annotated[
        _Some, typer.Option(help="File that brings your own: .py that registers, or .yml.")
    ] = None,
    cohort: Annotated[_Some, typer.Option(help="Only this cohort; may be repeated.")] = None,
    model: Models = None,
    out: Page = None,
) -> None:
    """Write a report of a model or a cohort: one page with figures, methods and tables to save.

    Your own model: a Python file that calls models.register, run first (--own my_model.py). Your
    own cohort: its description (my_cohort.yml), which is checked first.
    """
    from tumorbench_book import reports

    target = reports.target(out or Path(), f"{Path(name).stem}-report.html")
    chosen = {"only_cohorts": cohort or None, "only_models": model or None}
    made = reports.make("report", name=name, own=own or [], **chosen)
    for note in made.record["notes"]:
        typer.echo(f"not computed: {note}", err=True)
    typer.echo(reports.write(made.html, target))
