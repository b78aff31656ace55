"""``tumorbench embed`` and ``tumorbench import-released``."""

from pathlib import Path
from typing import Annotated

import typer

_Names = Annotated[list[str] | None, typer.Argument(help="Cohorts by key.", show_default=False)]


def embed(
    cohorts: _Names = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model; may be repeated.")
    ] = None,
    edition: Annotated[str | None, typer.Option(help="Else TUMORBENCH_EDITION.")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder; else that of the book.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; else what is there.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Patches per pass.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a running dask scheduler, in place of workers.")
    ] = None,
) -> None:
    """Embed cohorts (all of the edition if none is named); call again to go on after a crash."""
    from tumorbench_utils import embeddings, settings
    from tumorbench_utils.cohorts import COHORTS, load_cohort
    from tumorbench_utils.models import MODELS, get_model

    edition = settings.edition(edition)
    names = [get_model(name).key for name in (model or MODELS)]
    folder = (
        embeddings.EmbeddingStore(store.absolute()) if store else embeddings.default_store(edition)
    )
    loaded = [load_cohort(name, edition) for name in (cohorts or COHORTS)]
    failed = 0
    with _client(workers, scheduler) as client:
        for cohort in loaded:
            report = embeddings.embed(
                cohort, names, folder, client=client, device=device, batch_size=batch_size
            )
            typer.echo(f"{cohort.card.key}: {report}")
            failed += len(report.failed)
    typer.echo(folder.root)
    if failed:
        raise typer.Exit(1)


def _client(workers: int, scheduler: str | None):
    """Return a context with a dask client, or with None where one process will do."""
    import contextlib
    import os
    import sys

    from tumorbench_utils import settings

    if scheduler is None and workers == 1:
        return contextlib.nullcontext()
    from distributed import Client

    if scheduler is not None:
        return Client(scheduler)
    if sys.version_info < (3, 11):  # knows no PYTHONSAFEPATH: workers import from where they start
        os.chdir(settings.BOOK_ROOT)
    return Client(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def import_released(
    cohorts: _Names = None,
    file: Annotated[
        Path | None, typer.Option(help="A file that is here already (for one cohort).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before downloads.")] = False,
) -> None:
    """Download, verify and convert the features that the authors released; sizes are shown first.

    Needs the released cohort tables in TUMORBENCH_DATA. Without a name, lists what there is.
    """
    from tumorbench_utils import downloads, embeddings, settings
    from tumorbench_utils.embeddings.load import import_into

    known = embeddings.released_files()
    unknown = [name for name in cohorts or [] if name not in known]
    if unknown:
        raise KeyError(settings.unknown("cohort with released features", unknown[0], known))
    for name in cohorts or known:
        file_name = Path(known[name]["path"]).name
        typer.echo(f"{known[name]['size'] / 1e6:7.1f} MB  {file_name}  ({name})")
    if not cohorts:
        return
    if file is not None and len(cohorts) > 1:
        raise ValueError("--file goes with one cohort")
    store = embeddings.default_store("released")
    total = sum(known[name]["size"] for name in cohorts) / 1e6
    if file is None and not yes:
        typer.confirm(
            f"Download {total:.1f} MB and keep about as much in {store.root}?", abort=True
        )
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
