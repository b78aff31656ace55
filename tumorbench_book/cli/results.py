"""``tumorbench results``: list the kept results, compare two models, check submissions."""

from pathlib import Path
from typing import Annotated

import typer

results = typer.Typer(help="List the results that were kept, and compare models.")


@results.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    cohort: Annotated[str | None, typer.Option(help="Only this cohort.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
) -> None:
    """List the results that were kept: the one that was used last for each name."""
    if context.invoked_subcommand:
        return
    from tumorbench_utils import results as kept

    table = kept.table(cohort=cohort, model=model)
    if table.empty:
        print(f"no results in {kept.folder()}; chapters and `tumorbench book` make them")
        return
    shown = table.rename(columns={"mean": "auc"})
    print(shown.to_string(index=False, float_format="%.3f", na_rep="-"))
    print(f"{len(table)} results in {kept.folder()}; intervals: 95%, corrected for overlap")


@results.command()
def compare(
    cohort: Annotated[str, typer.Argument(help="Cohort, e.g. luna16.")],
    models: Annotated[list[str], typer.Argument(help="Models; the first is the reference.")],
    probe: Annotated[str, typer.Option(help="knn or linear.")] = "knn",
    protocol: Annotated[str, typer.Option(help="careful or published.")] = "careful",
) -> None:
    """Compare models on the same test patients: paired intervals, DeLong's test, Holm."""
    from tumorbench_utils import probes, settings
    from tumorbench_utils import results as kept

    if len(set(models)) < 2:
        raise typer.BadParameter("give at least two different models to compare")
    how = {"probe": probe, "protocol": protocol, "edition": settings.edition()}
    found = {model: kept.newest(cohort, model, **how) for model in models}
    table = probes.compare(found, models[0])
    print(", ".join([cohort, *(f"{k} {v}" for k, v in how.items())]) + f"; reference: {models[0]}")
    print(table.to_string(float_format="%.3f", na_rep="-"))
    print(
        "intervals: 95%, patients resampled, fits kept; p: DeLong, patients as clusters; "
        "p_refit: corrected resampled t test"
    )


@results.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="Submission files (JSON).")],
    splits: Annotated[
        bool, typer.Option("--splits", help="Also make the splits again and compare test lesions.")
    ] = False,
) -> None:
    """Check submissions: name every fault; the exit status is 1 if there is any."""
    from tumorbench_utils import submissions

    faulty = 0
    for path in files:
        try:
            body = submissions.read(path)
            found = submissions.split_faults(body) if splits else []
            said = [f"{path} has {len(found)} faults:", *found] if found else [f"{path}: ok"]
        except submissions.SubmissionError as error:
            found = said = [str(error)]
        print("\n  ".join(said))
        faulty += bool(found)
    if faulty:
        raise typer.Exit(1)


@results.command()
def export(
    model: Annotated[str, typer.Argument(help="Name under which results were kept.")],
    file: Annotated[Path, typer.Argument(help="File to write (JSON).")],
    facts: Annotated[Path, typer.Option(help="JSON file with the facts about the model.")],
    by: Annotated[str, typer.Option(help="Who stands for the numbers.")],
) -> None:
    """Write the kept results of a model as a submission, to a new file."""
    import json

    from tumorbench_utils import results, settings, submissions

    edition = settings.edition()
    about = json.loads(facts.read_text(encoding="utf-8"))
    kept, splits = {}, {"careful": "grouped", "published": "reference"}
    for meta, result in results.noted(edition=edition, model=model):
        own = meta["splits"] == splits.get(meta["protocol"]) and meta["probe"] in ("knn", "linear")
        if own:
            kept[tuple(meta[name] for name in submissions.KEYS)] = result
    body = submissions.submission(about, kept, by=by, edition=edition)
    with file.open("x", encoding="utf-8") as stream:  # results are never overwritten
        json.dump(body, stream, indent=1, ensure_ascii=False)
    print(f"{file}: {len(kept)} results of {model}; check it with `tumorbench results check`")
