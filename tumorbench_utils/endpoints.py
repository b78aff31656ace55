"""A cohort's endpoint as the chapters score it: labels, splits, probes, baselines; kept as files.

An :class:`Endpoint` fixes who is in, which label counts and how lesions are split, for one
protocol. Everything that it scores stands on the same test lesions and can be compared.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import expit

from tumorbench_utils import checks, digests, handcrafted, probes, results, settings, splits
from tumorbench_utils.baselines import covariate_score, rulers
from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.embeddings import EmbeddingStore, Encoder, embed
from tumorbench_utils.files import made
from tumorbench_utils.models import get_model
from tumorbench_utils.patches import sources
from tumorbench_utils.probes import LinearProbe, ProbeResult
from tumorbench_utils.probes.compare import design
from tumorbench_utils.probes.inputs import PROTOCOLS, rows_to_fit
from tumorbench_utils.probes.run import run_score

#: What a clinician knows without an image, where a cohort has it.
CLINICAL = ("age", "sex", "stage", "histology", "clinrisk_score")


@dataclass(frozen=True, eq=False)
class Endpoint:
    """Labels, patients and splits of a cohort under one protocol.

    Attributes
    ----------
    cohort : Cohort
    protocol : {"careful", "published"}
    table : DataFrame, index ``lesion_id``
        The lesions that are scored.
    y : Series of int, index ``lesion_id``
    groups : Series, index ``lesion_id``
        Patients.
    splits : list of Split
        Positions in `y`.
    seed : int
    """

    cohort: Cohort
    protocol: str
    table: pd.DataFrame
    y: pd.Series
    groups: pd.Series
    splits: list[splits.Split]
    seed: int

    def _note(self, result: ProbeResult, model, probe, protocol, weights=None) -> ProbeResult:
        facts = {"model": model, "probe": probe, "protocol": protocol, "weights": weights}
        facts |= {"cohort": self.cohort.card.key, "edition": self.cohort.edition, "seed": self.seed}
        sides = "grouped" if self.protocol == "careful" else "reference"
        return results.note(result, splits=sides, **facts)

    def _run(self, function, *inputs, **options):
        """Return what a function of ``probes`` makes of features of the endpoint's lesions."""
        given = *inputs, self.y, self.splits
        return results.computed(function, *given, groups=self.groups, **options)

    def probe(self, model, X, probe="knn", *, protocol=None, weights=None) -> ProbeResult:
        """Score an embedding, or other numbers per lesion, by a probe.

        Parameters
        ----------
        model : str
            Name under which the result is kept.
        X : DataFrame, index ``lesion_id``
            Features of at least the lesions of the endpoint.
        probe : {"knn", "linear"}
        protocol : {"careful", "published"}, optional
            None is the protocol of the endpoint.
        weights : str, optional
            One of ``plots.WEIGHTS``.
        """
        protocol, X = protocol or self.protocol, X.loc[self.y.index]
        result = self._run(probes.run_probe, X, probe=probe, protocol=protocol)
        return self._note(result, model, probe, protocol, weights)

    def frozen(self, X: pd.DataFrame, number: int = 0) -> LinearProbe:
        """Return the careful linear probe of one split, fitted, to score changed scans with.

        Parameters
        ----------
        X : DataFrame, index ``lesion_id``
            Features of at least the lesions of the endpoint.
        number : int
            Which split; its training and validation lesions are fitted on.
        """
        X, split = X.loc[self.y.index], self.splits[number]
        strength = probes.run_probe(X, self.y, [split], "linear").chosen[0]
        rows, probe = rows_to_fit(split), LinearProbe(C=strength, scale=True)
        return probe.fit(X.to_numpy()[rows], self.y.to_numpy()[rows])

    def few_shot(self, model: str, X, shots, *, weights=None) -> dict[int, ProbeResult]:
        """Score nearest neighbours fitted on a few lesions per class, one result per number."""
        options = {"shots": list(shots), "seed": self.seed}
        of_shots = self._run(probes.few_shot, X.loc[self.y.index], **options)
        for n, result in of_shots.items():
            self._note(result, model, f"{n}-shot", "published", weights)
        return of_shots

    def ensemble(self, features, method, protocol="careful", *, weights=None) -> ProbeResult:
        """Score several embeddings together, see ``probes.ensemble``; kept under the method's name.

        The splits are those of the endpoint, whatever the protocol of the ensemble.
        """
        used = {name: X.loc[self.y.index] for name, X in features.items()}
        result = self._run(probes.ensemble, used, method=method, protocol=protocol)
        return self._note(result, f"{method} of {len(used)}", "knn", protocol, weights)

    def rulers(self) -> dict[str, ProbeResult]:
        """Score what takes no fit at all: ``size`` and ``clinical score``, where there are any.

        Missing values take the median.
        """
        scored = {}
        for ruler, (column, direction) in rulers(self.cohort).items():
            values = covariate_score(self.table, column, direction)
            name = {"clinical": "clinical score"}.get(ruler, ruler)
            scored[name] = self._unfitted(name, values.fillna(values.median()))
        return scored

    def _unfitted(self, name: str, values: pd.Series) -> ProbeResult:
        return self._note(self._run(run_score, values), name, "score", "unfitted")

    def covariates(self) -> pd.DataFrame:
        """Return size and clinical covariates as numbers, see ``probes.compare.design``."""
        there = self.table.columns[self.table.notna().any()]
        known = (self.cohort.size_column, *CLINICAL)
        return design(self.table, [name for name in known if name in there])

    def baselines(self, probe: str = "linear") -> dict[str, ProbeResult]:
        """Score what needs no pre-trained network, as far as the cohort allows.

        Parameters
        ----------
        probe : {"knn", "linear"}
            What reads the untrained network.

        Returns
        -------
        dict of ProbeResult
            ``best known`` (phantoms: the true probability), ``size``, ``clinical score`` (both
            unfitted), ``size + clinical`` (logistic regression) and, where there are images,
            ``handcrafted`` (logistic regression on intensity, shape and texture) and ``untrained
            network`` (a compact encoder with random weights).
        """
        scored, numbers = {}, {}
        if "true_logit" in self.table:
            truth = expit(self.table["true_logit"].astype(float))
            scored["best known"] = self._unfitted("best known", truth)
        scored |= self.rulers()
        if (covariates := self.covariates()).shape[1] > 1:
            numbers["size + clinical"] = covariates
        if pictured := self.cohort.edition != "released":
            numbers["handcrafted"] = handcrafted_features(self.cohort)
        for name, X in numbers.items():
            scored[name] = self.probe(name, X, "linear", protocol="careful")
        if pictured:
            name, X = "untrained network", untrained_features(self.cohort)
            scored[name] = self.probe(name, X, probe, weights="untrained")
        return scored

    def null(self, X: pd.DataFrame, probe: str = "knn", *, n: int = 50) -> np.ndarray:
        """Return mean AUCs of the protocol with labels permuted between patients, shape (n,).

        What lies within their spread is chance; a centre away from 0.5 is leakage. See
        ``probes.permutation_null``.
        """
        make = partial(_splits, self.protocol, self.groups, len(self.splits))
        options = {"protocol": self.protocol, "groups": self.groups, "n": n, "seed": self.seed}
        return probes.permutation_null(X.loc[self.y.index], self.y, make, probe, **options)

    def added_value(self, model: str, X, columns, *, weights=None) -> dict[str, ProbeResult]:
        """Score nested models: covariates alone, embedding alone, both.

        Parameters
        ----------
        model, X, weights
            As for :meth:`probe`.
        columns : list of str
            Covariates of the table.
        """
        nested = self._run(probes.added_value, X.loc[self.y.index], design(self.table, columns))
        for part, result in nested.items():
            probe = f"nested {'+'.join(columns)} {part}"
            self._note(result, model, probe, "careful", weights)
        return nested


def _splits(protocol: str, groups: pd.Series, n_repeats: int, y) -> list[splits.Split]:
    if protocol == "published":
        return splits.reference_splits(y)
    table = pd.DataFrame({"label": np.asarray(y), "patient_id": groups.to_numpy()})
    return splits.grouped_splits(table, n_repeats)


def endpoint(cohort: Cohort, protocol="careful", *, n_repeats=10, lesions=None) -> Endpoint:
    """Return the endpoint of a cohort under a protocol.

    Parameters
    ----------
    cohort : Cohort
        One with labels.
    protocol : {"careful", "published"}
        ``careful``: every lesion with a label by the rule of the card, splits by patient.
        ``published``: the lesions and the label of the publication, its ten splits by lesion.
    n_repeats : int
        Number of the splits by patient.
    lesions : iterable of str, optional
        Keep only these, for example those with released features.

    Raises
    ------
    ValueError
        If the cohort has no labels or the protocol is not known.
    """
    published = checks.one_of(protocol, "protocol", PROTOCOLS) == "published"
    table = cohort.table.set_index("lesion_id")
    if lesions is not None:
        table = table[table.index.isin(list(lesions))]
    if published and "used_in_reference" in table:
        table = table[table["used_in_reference"].astype(bool)]
    column = "label_reference" if published else "label"
    table = table[table[column].notna()]
    if table.empty:
        raise checks.InputError(f"{cohort.card.key} has no labels, so there is nothing to predict")
    y, groups = table[column].astype(int).rename("label"), table["patient_id"]
    parts = _splits(protocol, groups, n_repeats, y)
    return Endpoint(cohort, protocol, table, y, groups, parts, 10 if published else 0)


def handcrafted_features(cohort: Cohort) -> pd.DataFrame:
    """Return ``handcrafted.cohort_features``, kept until images, seeds or their code change.

    Parameters
    ----------
    cohort : Cohort
        One whose images are there.

    Returns
    -------
    DataFrame, index ``lesion_id``
    """
    table = cohort.table[["lesion_id", "image_path", "coord_x", "coord_y", "coord_z"]]
    files = [file for image in table["image_path"].unique() for file in sources(image)]
    state = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    code = digests.of_code("tumorbench_utils.handcrafted")
    digest = digests.of(cohort.card.key, cohort.edition, table, state, code)[:16]
    path = settings.cache_dir() / "handcrafted" / f"{digest}.parquet"
    make = handcrafted.cohort_features
    return pd.read_parquet(made(path, lambda part: make(cohort).to_parquet(part)))


def untrained_features(cohort: Cohort) -> pd.DataFrame:
    """Return embeddings by a compact encoder with random weights: what the architecture gives.

    Parameters
    ----------
    cohort : Cohort
        One whose images are there.

    Returns
    -------
    DataFrame, index ``lesion_id``
    """
    store, model = EmbeddingStore(settings.cache_dir() / "untrained"), "models_genesis"
    report = embed(cohort, [Encoder(get_model(model))], store, progress=False)
    if report.failed:
        raise checks.InputError(f"{cohort.card.key} could not be embedded whole.\n{report}")
    return store.read(cohort, model).loc[list(cohort.table["lesion_id"])]
