"""From an objective to a shipped encoder: train, round, examine, write weights and card."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tumorbench_training import readout
from tumorbench_training.data import HELD_OUT, TRAIN, WIDE_SPACING, phantoms_of
from tumorbench_training.objectives import LesionContrast
from tumorbench_training.recipes import RECIPES
from tumorbench_training.train import fit
from tumorbench_utils import digests, settings
from tumorbench_utils.files import atomic_path
from tumorbench_utils.models import CheckpointError, get_model, teaching

#: The seed of all shipped encoders: of their first weights, their batches and their examination.
SEED = 0

LICENCE = "CC0-1.0"

#: How well a second training repeats the first.
TOLERANCE = (
    "the same bytes on the same kind of processor with the same number of threads and version of "
    "torch; elsewhere the score on the own objective within its interval"
)


def make_encoder(
    key: str,
    folder: Path | None = None,
    *,
    steps: int | None = None,
    counts: dict[str, int] | None = None,
    device: str = "cpu",
    workers: int = 1,
    progress: bool = True,
) -> dict:
    """Train the teaching encoder of a model, examine it, and write its weights and card.

    A run that was interrupted goes on where it was last saved. What is examined are the weights
    after rounding to float16, on phantoms that the training has not seen, beside an *untrained
    twin*: the same network with its first weights. Where an objective needs a decoder or a text
    tower, the twin gets one of its own, trained for as many steps on what the frozen twin gives.

    Parameters
    ----------
    key : str
        Of a model in ``RECIPES``.
    folder : Path, optional
        If None, ``data/encoders``.
    steps, counts : int, dict of str to int, optional
        Steps, and phantoms per cohort in training and in examination, if not those of the recipe.
    device : str
        Where to train. Examined on the CPU.
    workers : int
        Processes that draw phantoms.
    progress : bool

    Returns
    -------
    dict
        The card, as written to ``KEY.json``.

    Raises
    ------
    KeyError
        If there is no such model or no recipe for it.
    """
    model = get_model(key)
    if key not in RECIPES:
        raise KeyError(settings.unknown("teaching encoder", key, RECIPES))
    objective = RECIPES[key]
    folder = teaching.folder() if folder is None else Path(folder)
    steps = objective.steps if steps is None else steps
    shown = phantoms_of("train", counts, workers=workers, progress=progress)
    unseen = phantoms_of("held-out", counts, workers=workers, progress=progress)
    facts = {
        "model": key,
        "objective": objective.name,
        "class": type(objective).__name__,
        "citation": objective.citation,
        "settings": dataclasses.asdict(objective) | {"steps": steps},
        "seed": SEED,
    }
    state = settings.cache_dir() / "pretraining" / f"{key}-{digests.of(facts, counts)[:12]}.pt"
    start = time.perf_counter()
    module = model.build("compact", seed=SEED).to(device)
    label = key if progress else ""
    head, losses = fit(
        objective, model, module, shown, steps=steps, seed=SEED, state=state, progress=label
    )
    minutes = (time.perf_counter() - start) / 60
    with atomic_path(folder / f"{key}.safetensors") as part:
        teaching.save(module, part, model.optional)
    teaching.load(module.cpu(), folder / f"{key}.safetensors", model.optional)
    twin = model.build("compact", seed=SEED)
    label = f"{key}, head of the twin" if progress else ""
    twin_head, _ = fit(
        objective, model, twin, shown, steps=steps, seed=SEED, frozen=True, progress=label
    )
    own = _own_objective(objective, model, (module, head.cpu()), (twin, twin_head), unseen)
    card = {
        **facts,
        "measure": objective.measure,
        "higher_is_better": objective.higher_is_better,
        "own": own,
        "phenotypes": _phenotypes(model, module, twin, unseen),
        "data": {
            "what": "phantoms of the book (phantoms.sample); no patient data",
            "training": counts or TRAIN,
            "held_out": counts or HELD_OUT,
            "shown": len(shown.of_organs(objective.organs)),
        },
        "losses": [round(loss, 4) for loss in losses],
        "minutes": round(minutes, 1),
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "tolerance": TOLERANCE,
        "licence": LICENCE,
        "bytes": (folder / f"{key}.safetensors").stat().st_size,
        "sha256": digests.of_file(folder / f"{key}.safetensors"),
    }
    with atomic_path(folder / f"{key}.json") as part:
        part.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    state.unlink(missing_ok=True)
    return card


def _own_objective(objective, model, trained, twin, unseen) -> dict:
    """Return how a trained encoder and its twin do on the objective, on unseen phantoms."""
    indices = unseen.of_organs(objective.organs)
    if len(indices) > objective.held_out:
        # Evenly over the list, so that all cohorts are in it.
        places = np.linspace(0, len(indices) - 1, objective.held_out).round().astype(int)
        indices = indices[places]
    found = [
        objective.scores(model, *pair, unseen, indices, np.random.default_rng(SEED))
        for pair in (trained, twin)
    ]
    chance = 1 / len(indices) if isinstance(objective, LesionContrast) else objective.chance
    return {**readout.compare_scores(*found, seed=SEED), "chance": chance}


def _phenotypes(model, module, twin, unseen) -> dict:
    """Return how well phenotypes of unseen lesions are read from both embeddings, by site."""
    sites = readout.SITES
    if model.spec.spacing_mm == WIDE_SPACING:  # a patch that is not kept of abdomens
        sites = {"chest": sites["chest"]}
    found = {}
    for site, organs in sites.items():
        indices = unseen.of_organs(organs)
        true = readout.targets(unseen.table.loc[indices])
        stacked = np.column_stack(list(true.values()))
        guesses = [
            readout.predicted(readout.embeddings(model, net, unseen, indices), stacked, SEED)
            for net in (module, twin)
        ]
        found[site] = {
            name: readout.compare(values, *(guess[:, k] for guess in guesses), seed=SEED)
            for k, (name, values) in enumerate(true.items())
        }
    return found


def missing() -> list[str]:
    """Return the models whose shipped weights are absent or altered."""
    absent = []
    for key in RECIPES:
        try:
            teaching.find(key)
        except CheckpointError:
            absent.append(key)
    return absent


def read_cards() -> list[dict]:
    """Return the cards of all teaching encoders, in the order of the benchmark."""
    return [teaching.read_card(key) for key in RECIPES]


def own_table(cards: list[dict]) -> pd.DataFrame:
    """Return how each encoder does on its own objective beside its untrained twin.

    Returns
    -------
    DataFrame
        One row per encoder: ``model, objective, measure, higher_is_better, chance, n``, and for
        ``trained, untrained, difference`` the mean and the ends of its 95% interval (``_low``,
        ``_high``).
    """
    rows = []
    for card in cards:
        facts = {k: card[k] for k in ("model", "objective", "measure", "higher_is_better")}
        own = card["own"]
        rows.append({**facts, "chance": own["chance"], "n": own["n"], **_spread(own)})
    return pd.DataFrame(rows)


def phenotype_table(cards: list[dict]) -> pd.DataFrame:
    """Return the linear read-out (R2) of each phenotype from each encoder and its twin.

    Returns
    -------
    DataFrame
        One row per encoder, site and phenotype: ``model, objective, site, phenotype``, and the
        columns of :func:`own_table` from ``trained`` on.
    """
    rows = [
        {
            "model": card["model"],
            "objective": card["objective"],
            "site": site,
            "phenotype": name,
            **_spread(found),
        }
        for card in cards
        for site, phenotypes in card["phenotypes"].items()
        for name, found in phenotypes.items()
    ]
    return pd.DataFrame(rows)


def _spread(found: dict) -> dict:
    columns = {}
    for name in ("trained", "untrained", "difference"):
        columns[name], columns[f"{name}_low"], columns[f"{name}_high"] = found[name]
    return columns
