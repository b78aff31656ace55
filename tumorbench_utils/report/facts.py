"""What a run can say about itself: the methods in words, and the items of reporting guidelines.

CLEAR (Kocak et al. 2023, doi 10.1186/s13244-023-01415-8), METRICS (Kocak et al. 2024, doi
10.1186/s13244-023-01572-w) and TRIPOD+AI (Collins et al. 2024, doi 10.1136/bmj-2023-078378). Item
numbers are theirs, the topics are in our words: read the guidelines themselves. What a run cannot
know (ethics, funding, setting, treatments, use) is left to the authors.
"""

import platform
from collections.abc import Iterable
from importlib.metadata import version

import pandas as pd

from tumorbench_utils import plots, results, settings
from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.cohorts.registry import is_own
from tumorbench_utils.models import get_model
from tumorbench_utils.probes.linear import C_GRID
from tumorbench_utils.report.analyses import kind_of, weights_of
from tumorbench_utils.splits import FRACTIONS

_LIBRARIES = ("torch", "monai", "SimpleITK", "scikit-learn", "scipy", "numpy", "pandas")
_SHARES = "/".join(f"{share:.0%}".rstrip("%") for share in FRACTIONS)

#: Sentences about the protocol, the same for every run.
PROTOCOL = {
    "split": (
        f"Ten random splits of {_SHARES}% into train, validation and test; all lesions of a "
        "patient lie on one side; class shares are kept as well as patients allow."
    ),
    "scaling": (
        "Features are divided by their standard deviation in the rows that are fitted on and by "
        "the root of their number; none is selected."
    ),
    "classifier": (
        "Ridge-penalised logistic regression on the frozen features (linear probe); the encoder "
        "is not trained."
    ),
    "tuning": (
        f"The inverse penalty is chosen among {', '.join(f'{c:g}' for c in C_GRID)} by the log "
        "loss on the validation rows; the final fit uses training and validation rows."
    ),
    "testing": (
        "Internal: the test rows of each split are scored once, after all choices. There is no "
        "external test."
    ),
    "metrics": (
        "Area under the ROC curve, mean over the splits; Brier score where scores are "
        "probabilities; Uno's concordance where there is follow-up. Differences to the ruler are "
        "made on the same test patients."
    ),
    "uncertainty": (
        "95% intervals by Student's t with the variance of Nadeau and Bengio (2003), which allows "
        "for the overlap of the splits; differences: percentiles over resampled patients, in pairs."
    ),
    "comparison": (
        "DeLong's test on predictions averaged over the splits, lesions of a patient as a cluster "
        "(Obuchowski 1997), adjusted after Holm."
    ),
    "confounders": (
        "Lesion size and a clinical score are scored as they stand, and together by a regression; "
        "handcrafted numbers and an untrained network stand beside where images are there."
    ),
    "output": "A probability of label 1, and the log-odds behind it; no threshold is set.",
}


def origin(cohort: Cohort) -> str:
    """Return where a cohort comes from: its edition, or that it is somebody's own."""
    return "own cohort" if is_own(cohort.card.key) else plots.label(cohort.edition)


def methods(models: Iterable[str], cohorts: Iterable[Cohort]) -> list[str]:
    """Return the methods of a run, paragraph by paragraph.

    Parameters
    ----------
    models : iterable of str
        The models that the report is about.
    cohorts : iterable of Cohort
    """
    lines = []
    for cohort in cohorts:
        card, table = cohort.card, cohort.table
        rule = f" Label: {card.label_rule}." if card.label_rule else ""
        lines.append(
            f"{card.title} ({origin(cohort)}): {len(table)} lesions of "
            f"{table['patient_id'].nunique()} patients. "
            f"Endpoint: {card.endpoint or 'as labelled'}.{rule}"
        )
        lines += [
            f"{card.title}: left out: {row['lesion_id']}: {row['reason']}."
            for row in table.attrs.get("excluded", [])
        ]
    edition = next(iter(cohorts)).edition
    lines += [_features(model, edition) for model in models]
    lines += [PROTOCOL[k] for k in ("split", "scaling", "classifier", "tuning", "testing")]
    lines += [PROTOCOL[k] for k in ("metrics", "uncertainty", "comparison", "confounders")]
    return lines


def _features(model: str, edition: str) -> str:
    """Return how a model makes features of a lesion."""
    found = get_model(model)
    spec = found.spec
    size = " x ".join(map(str, spec.size))
    spacing = " x ".join(f"{mm:g}" for mm in spec.spacing_mm)
    return (
        f"{found.card.title} ({weights_of(model, edition)}): {found.dim} features from a patch of "
        f"{size} voxels of {spacing} mm around the seed, resampled linearly, axes "
        f"{spec.orientation}, {spec.window_hu[0]:g} to {spec.window_hu[1]:g} HU mapped to "
        f"{spec.out_range[0]:g} to {spec.out_range[1]:g}."
    )


def versions() -> pd.DataFrame:
    """Return the versions of everything that computes; ``code`` is a digest of probes and stats."""
    rows = {"Python": platform.python_version(), "platform": platform.platform(terse=True)}
    rows |= {"tumorbench-utils": version("tumorbench-utils"), "code": results.versions()["code"]}
    rows |= {name: version(name) for name in _LIBRARIES}
    return pd.DataFrame({"version": rows}).rename_axis("what")


def answers(
    models: list[str], cohorts: list[Cohort], tables: dict[str, pd.DataFrame]
) -> dict[str, str]:
    """Return what a run can say, by the names of facts in ``data/reporting_items.csv``.

    Parameters
    ----------
    models : list of str
        What the report is about.
    cohorts : list of Cohort
    tables : dict of str to DataFrame
        Of the report, by ``ANALYSIS-COHORT``.
    """
    scores, repeated = (
        {name.partition("-")[2]: t for name, t in tables.items() if name.startswith(analysis)}
        for analysis in ("discrimination", "repeatability")
    )
    edition = cohorts[0].edition
    shown = [model for model in models if kind_of(model) != "baseline"]
    cards = {model: get_model(model).card for model in shown}
    many = {c.card.key: c for c in cohorts}

    def each(say) -> str:
        return " ".join(f"{c.card.title}: {say(c)}" for c in cohorts)

    def best(rows: pd.DataFrame) -> str:
        return "; ".join(
            f"{name} {row['auc']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            for name, row in rows.iterrows()
        )

    facts = dict(PROTOCOL)
    facts["data_source"] = each(lambda c: _or_silent(c.card.source, c.card.doi))
    if edition == "phantom" and not all(is_own(c.card.key) for c in cohorts):
        facts["data_source"] += " This run: phantoms shaped after them, no patients."
    facts["data_access"] = each(lambda c: _or_silent(c.card.licence, c.card.access))
    facts["overlap"] = "Pre-training data: " + " ".join(
        f"{card.title}: {card.data or 'not stated'}." for card in cards.values()
    )
    facts["outcome"] = each(lambda c: _or_silent(c.card.endpoint, c.card.label_rule))
    facts["covariates"] = each(
        lambda c: ", ".join(n for n in (c.size_column, c.clinical_column) if n) or "none."
    )
    facts["preprocessing"] = facts["features"] = " ".join(_features(m, edition) for m in shown)
    facts["missing"] = (
        each(lambda c: f"{int(c.table['label'].isna().sum())} without label, left out.")
        + " Missing covariates take the median and, in regressions, a mark."
    )
    facts["imbalance"] = each(_classes) + " Not reweighted, so that probabilities stay calibrated."
    facts["sample_size"] = each(
        lambda c: f"{c.table['patient_id'].nunique()} patients; {_classes(c)}"
    )
    facts["sample_size"] += " Given by the data; no calculation was made."
    facts["counts"] = each(_counts)
    facts["dimensionality"] = each(
        lambda c: (
            "; ".join(f"{get_model(m).dim} features of {m}" for m in shown)
            + f" for {c.table['patient_id'].nunique()} patients."
        )
    )
    if scores:
        facts["performance"] = " ".join(
            f"{many[name].card.title}: AUC {best(rows[rows.index.isin(shown)])}."
            for name, rows in scores.items()
        )
        facts["beside"] = " ".join(
            f"{many[name].card.title}: AUC {best(rows[rows['kind'] == 'baseline'])}."
            for name, rows in scores.items()
        )
    if repeated:
        facts["robustness"] = " ".join(
            f"{many[name].card.title}, scanned twice: "
            + "; ".join(
                f"{model} found again {row['reidentified']:.0%} "
                f"[{row['low']:.0%}, {row['high']:.0%}]"
                for model, row in rows[rows.index.isin(shown)].iterrows()
            )
            + "."
            for name, rows in repeated.items()
        )
    facts["code"] = f"tumorbench-utils {version('tumorbench-utils')}, MIT licence."
    facts["model_access"] = " ".join(
        f"{card.title}: {_or_silent(card.source, card.licence)}" for card in cards.values()
    )
    problems = [f"{c.card.title}: {line}." for c in cohorts for line in c.card.known_problems]
    facts["limits"] = " ".join(problems) or "No known problems are on the card of the cohort."
    return facts


def items(facts: dict[str, str]) -> pd.DataFrame:
    """Return the items that a run can answer: ``guideline, item, topic, answer``."""
    table = pd.read_csv(settings.BOOK_ROOT / "data" / "reporting_items.csv", dtype=str)
    table["answer"] = table["fact"].map(facts)
    return table.dropna(subset=["answer"]).drop(columns="fact").reset_index(drop=True)


def _or_silent(*parts: str | None) -> str:
    """Return what a card says, or that it says nothing."""
    said = [part for part in parts if part]
    return f"{', '.join(said)}." if said else "not on the card: to be written by the authors."


def _classes(cohort: Cohort) -> str:
    counts = cohort.table["label"].value_counts()
    text = f"{int(counts.get(0, 0))} lesions of label 0, {int(counts.get(1, 0))} of label 1"
    if cohort.table["event"].notna().any():
        text += f", {int(cohort.table['event'].sum())} events"
    return f"{text}."


def _counts(cohort: Cohort) -> str:
    """Return medians and shares of the covariates that most cohorts have."""
    table = cohort.table
    parts = [f"{table['patient_id'].nunique()} patients, {len(table)} lesions"]
    for name, unit in ((cohort.size_column, "mm"), ("age", "years")):
        if name in table and table[name].notna().any():
            quartiles = table[name].astype(float).quantile([0.25, 0.5, 0.75])
            low, middle, high = quartiles
            unit = "pixels" if name == "size_px" else unit
            parts.append(f"{name} {middle:.0f} [{low:.0f}, {high:.0f}] {unit}")
    if "sex" in table and table["sex"].notna().any():
        shares = table["sex"].value_counts(normalize=True)
        parts.append(", ".join(f"{share:.0%} {value}" for value, share in shares.items()))
    return "; ".join(parts) + "."
