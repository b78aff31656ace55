"""The report: what was computed and what the run can say about itself, as one page and tables."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from tumorbench_utils import embeddings, settings, webpage
from tumorbench_utils.cohorts import COHORTS, Cohort, load_cohort
from tumorbench_utils.files import atomic_path
from tumorbench_utils.models import MODELS
from tumorbench_utils.report import facts
from tumorbench_utils.report.analyses import (
    discrimination,
    draw,
    kind_of,
    likeness,
    repeatability,
    time_to_event,
)

_PAGE = "report.html"


@dataclass(frozen=True, eq=False)
class Report:
    """A report before it is written.

    Attributes
    ----------
    title : str
    label : str
        Edition and weights.
    tables : dict of str to DataFrame
        By the name of their file; the parts of the name are the analysis and the cohort.
    methods : list of str
        Paragraphs.
    items : DataFrame
        ``guideline, item, topic, answer``.
    versions : DataFrame
    notes : list of str
        What could not be computed, and why.
    """

    title: str
    label: str
    tables: dict[str, pd.DataFrame]
    methods: list[str]
    items: pd.DataFrame
    versions: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def html(self) -> str:
        """Return the page; it needs no other file."""
        sections = {}
        for name, table in self.tables.items():
            heading, value, chance = _SHOWN[name.split("-")[0]]
            cohort = name.partition("-")[2]
            caption = f"{heading}, {cohort}; 95% intervals where drawn. {self.label}"
            figure, axes = plt.subplots(figsize=(6, 0.28 * len(table) + 1.2))
            draw(axes, table, value, chance=chance).set_xlabel(_AXES[value])
            sections.setdefault(heading, []).append(
                webpage.picture(figure, caption, f"Forest plot: {heading} on {cohort}.")
                + webpage.table(table, f"{heading}, {cohort}", precision=3)
            )
        sections["Methods"] = [webpage.text(line) for line in self.methods]
        sections["Reporting items"] = [
            webpage.text(
                "What the run can answer of CLEAR (58 items), METRICS (30) and TRIPOD+AI (27). "
                "Numbers are those of the guidelines, topics are in our words. Everything else, "
                "such as ethics, setting, treatments, funding and intended use, is for the authors "
                "to write; an answer here does not mean that an item is met."
            ),
            webpage.table(self.items, index=False),
        ]
        sections["Versions"] = [webpage.table(self.versions)]
        lead = [webpage.text(self.label)]
        if self.notes:
            lead.append(webpage.box("Not everything could be computed", self.notes, good=False))
        return webpage.page(self.title, sections, lead)

    def write(self, folder: str | os.PathLike) -> Path:
        """Write ``report.html`` and ``tables/*.csv``; the folder is whole or as it was.

        Returns
        -------
        Path
            The page.

        Raises
        ------
        FileExistsError
            If the folder is there and holds something else than a report.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or _foreign(folder)):
            raise FileExistsError(f"{folder} is there and is no report; name another folder")
        with atomic_path(folder) as part:
            (part / "tables").mkdir(parents=True)
            (part / _PAGE).write_text(self.html(), encoding="utf-8")
            for name, table in {**self.tables, "versions": self.versions}.items():
                table.to_csv(part / "tables" / f"{name}.csv")
            self.items.to_csv(part / "tables" / "items.csv", index=False)
        return folder / _PAGE


_SHOWN = {
    "discrimination": ("Discrimination", "auc", 0.5),
    "survival": ("Survival", "uno", 0.5),
    "repeatability": ("Repeatability", "reidentified", None),
    "likeness": ("Likeness", "cka", None),
}

_AXES = {
    "auc": "AUC",
    "uno": "Uno's concordance",
    "reidentified": "share of patients found again",
    "cka": "debiased CKA",
}


def _foreign(folder: Path) -> list[str]:
    """Return what in a folder is not part of a report."""
    held = {path.name for path in folder.iterdir()}
    return sorted(held - {_PAGE, "tables"}) if held else []


def of_model(
    model: str, cohorts: Iterable[str] | None = None, edition: str | None = None
) -> Report:
    """Return the report of a model: beside the ten on every endpoint, and on a test-retest cohort.

    Parameters
    ----------
    model : str
        Key; one of your own is registered first.
    cohorts : iterable of str, optional
        If None, all that have labels or two scans of each patient.
    edition : str, optional
        If None, ``TUMORBENCH_EDITION``, else phantom.

    Raises
    ------
    KeyError
        If a name is not known.
    """
    if model not in MODELS:
        raise KeyError(settings.unknown("model", model, MODELS))
    names = list(COHORTS if cohorts is None else cohorts)
    loaded = [load_cohort(name, edition) for name in names]
    tables, notes = {}, []
    for cohort in loaded:
        if model not in (found := embeddings.load_embeddings(cohort)):
            notes.append(f"{cohort.card.title}: no features of {model}")
            continue
        made, said = _analyse(cohort, found)
        tables |= made
        notes += said
        tables[f"likeness-{cohort.card.key}"] = likeness(found, model)
    title = f"{MODELS[model].card.title}: report of a model"
    return _report(title, [model], loaded, tables, notes)


def of_cohort(name: str, models: Iterable[str] | None = None, edition: str | None = None) -> Report:
    """Return the report of a cohort: what every model and every baseline achieves on it.

    Parameters
    ----------
    name : str
        Key; one of your own is registered first.
    models : iterable of str, optional
        If None, all that are registered.
    edition : str, optional

    Raises
    ------
    KeyError
        If a name is not known.
    """
    cohort = load_cohort(name, edition)
    found = embeddings.load_embeddings(cohort, models)
    tables, notes = _analyse(cohort, found)
    return _report(f"{cohort.card.title}: report of a cohort", list(found), [cohort], tables, notes)


def _analyse(cohort: Cohort, features) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return the tables that a cohort allows, and why others are not there."""
    tables, notes = {}, []
    wanted = []
    if cohort.table["label"].notna().any():
        wanted.append(("discrimination", discrimination))
    if cohort.table["event"].notna().any():
        wanted.append(("survival", time_to_event))
    if "session" in cohort.table:
        wanted.append(("repeatability", repeatability))
    for name, analysis in wanted:
        try:
            tables[f"{name}-{cohort.card.key}"] = analysis(cohort, features)
        except ValueError as error:
            notes.append(f"{cohort.card.title}, {name}: {error}")
    return tables, notes


def _report(title, models, cohorts, tables, notes) -> Report:
    edition = cohorts[0].edition
    kinds = {facts.weights_of(m, edition) for m in models if kind_of(m) != "baseline"}
    origins = dict.fromkeys(facts.origin(cohort) for cohort in cohorts)
    label = f"{'; '.join(origins)} | networks: {', '.join(sorted(kinds))}"
    answers = facts.answers(models, cohorts, tables)
    return Report(
        title,
        label,
        tables,
        facts.methods(models, cohorts),
        facts.items(answers),
        facts.versions(),
        notes,
    )
