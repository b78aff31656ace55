"""A cohort's endpoint as the chapters score it: labels, splits, probes, baselines; kept as files.

An :class:`Endpoint` fixes who is in, which label counts and how lesions are split, for one
protocol. Everything that it scores stands on the same test lesions and can be compared.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from tumorbench_utils import digests, handcrafted, probes, results, settings, splits
from tumorbench_utils.baselines import covariate_score
from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.embeddings import EmbeddingStore, Encoder, embed
from tumorbench_utils.files import atomic_path
from tumorbench_utils.models import get_model
from tumorbench_utils.probes import LinearProbe, ProbeResult

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

    def _of(self, X: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of the endpoint's lesions, or say that some are missing."""
        missing = self.y.index.difference(X.index)
        if len(missing):
            raise ValueError(
                f"{len(missing)} of {len(self.y)} lesions of {self.cohort.card.key} have no "
                f"features, for example {missing[0]!r}; leave them out with endpoint(lesions=...)"
            )
        return X.loc[self.y.index]

    def _note(self, result: ProbeResult, model, probe, protocol, weights=None) -> ProbeResult:
        return results.note(
            result,
            cohort=self.cohort.card.key,
            model=model,
            probe=probe,
            protocol=protocol,
            splits="grouped" if self.protocol == "careful" else "reference",
            seed=self.seed,
            edition=self.cohort.edition,
            weights=weights,
        )

    def _run(self, function, X, *options, **more):
        """Return what a function of ``probes`` makes of the lesions of the endpoint."""
        groups = self.groups
        return results.computed(function, X, self.y, self.splits, *options, groups=groups, **more)

    def probe(
        self, model: str, X: pd.DataFrame, probe: str = "knn", *, weights: str | None = None
    ) -> ProbeResult:
        """Score an embedding by a probe, under the protocol of the endpoint.

        Parameters
        ----------
        model : str
            Name under which the result is kept.
        X : DataFrame, index ``lesion_id``
            Features of at least the lesions of the endpoint.
        probe : {"knn", "linear"}
        weights : str, optional
            One of ``plots.WEIGHTS``.
        """
        result = self._run(probes.run_probe, self._of(X), probe, protocol=self.protocol)
        return self._note(result, model, probe, self.protocol, weights)

    def frozen(self, X: pd.DataFrame, number: int = 0) -> LinearProbe:
        """Return the careful linear probe of one split, fitted, to score changed scans with.

        Parameters
        ----------
        X : DataFrame, index ``lesion_id``
            Features of at least the lesions of the endpoint.
        number : int
            Which split; its training and validation lesions are fitted on.
        """
        X, split = self._of(X), self.splits[number]
        strength = probes.run_probe(X, self.y, [split], "linear").chosen[0]
        rows = np.concatenate([split.train, split.val])
        return LinearProbe(C=strength, scale=True).fit(X.to_numpy()[rows], self.y.to_numpy()[rows])

    def few_shot(
        self, model: str, X: pd.DataFrame, shots: Iterable[int], *, weights: str | None = None
    ) -> dict[int, ProbeResult]:
        """Score nearest neighbours fitted on a few lesions per class, one result per number."""
        found = self._run(probes.few_shot, self._of(X), list(shots), self.seed)
        for n, result in found.items():
            self._note(result, model, f"{n}-shot", "published", weights)
        return found

    def ensemble(
        self,
        features: dict[str, pd.DataFrame],
        method: str,
        protocol: str = "careful",
        *,
        weights: str | None = None,
    ) -> ProbeResult:
        """Score several embeddings together, see ``probes.ensemble``; kept under the method's name.

        The splits are those of the endpoint, whatever the protocol of the ensemble.
        """
        used = {name: self._of(X) for name, X in features.items()}
        result = self._run(probes.ensemble, used, method, protocol=protocol)
        return self._note(result, f"{method} of {len(used)}", "knn", protocol, weights)

    def score(self, name: str, column: str, direction: int) -> ProbeResult:
        """Score a covariate as it stands; missing values take its median."""
        values = covariate_score(self.table, column, direction)
        return self._unfitted(name, values.fillna(values.median()))

    def _unfitted(self, name: str, values: pd.Series) -> ProbeResult:
        result = self._run(probes.run_score, values, name=name)
        return self._note(result, name, "score", "unfitted")

    def rulers(self) -> dict[str, ProbeResult]:
        """Score what takes no fit at all: ``size`` and ``clinical score``, where there are any."""
        cohort, card = self.cohort, self.cohort.card
        wanted = {
            "size": (cohort.size_column, card.size_direction),
            "clinical score": (cohort.clinical_column, card.clinical_direction),
        }
        return {
            name: self.score(name, column, direction)
            for name, (column, direction) in wanted.items()
            if column is not None
        }

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
        found = {}
        if "true_logit" in self.table:
            truth = pd.Series(expit(self.table["true_logit"].astype(float)), self.table.index)
            found["best known"] = self._unfitted("best known", truth)
        found |= self.rulers()
        covariates = self.covariates()
        if covariates.shape[1] > 1:
            found["size + clinical"] = self.logistic("size + clinical", covariates)
        if self.cohort.edition != "released":
            numbers = handcrafted_features(self.cohort)
            found["handcrafted"] = self.logistic("handcrafted", numbers)
            random = untrained_features(self.cohort)
            found["untrained network"] = self.probe(
                "untrained network", random, probe, weights="untrained"
            )
        return found

    def null(self, X: pd.DataFrame, probe: str = "knn", *, n: int = 50) -> np.ndarray:
        """Return mean AUCs of the protocol with labels permuted between patients, shape (n,).

        What lies within their spread is chance; a centre away from 0.5 is leakage. See
        ``probes.permutation_null``.
        """

        def make_splits(labels):
            if self.protocol == "published":
                return splits.reference_splits(labels)
            table = pd.DataFrame({"label": labels, "patient_id": self.groups.to_numpy()})
            return splits.grouped_splits(table, n_repeats=len(self.splits), seed=self.seed)

        return probes.permutation_null(
            self._of(X),
            self.y,
            make_splits,
            probe,
            protocol=self.protocol,
            groups=self.groups,
            n=n,
            seed=self.seed,
        )

    def covariates(self) -> pd.DataFrame:
        """Return size and clinical covariates as numbers, see ``probes.design``."""
        known = [self.cohort.size_column, *CLINICAL]
        known = [name for name in known if name in self.table and self.table[name].notna().any()]
        return probes.design(self.table, known)

    def logistic(self, name: str, X: pd.DataFrame) -> ProbeResult:
        """Score plain numbers per lesion by the careful linear probe.

        Parameters
        ----------
        name : str
            Name under which the result is kept.
        X : DataFrame, index ``lesion_id``
            None missing, see :meth:`covariates`.
        """
        result = self._run(probes.run_probe, self._of(X), "linear")
        return self._note(result, name, "linear", "careful")

    def added_value(
        self, model: str, X: pd.DataFrame, columns: list[str], *, weights: str | None = None
    ) -> dict[str, ProbeResult]:
        """Score nested models: covariates alone, embedding alone, both.

        Parameters
        ----------
        model, X, weights
            As for :meth:`probe`.
        columns : list of str
            Covariates of the table.
        """
        X, known = self._of(X), probes.design(self.table, columns)
        found = results.computed(
            probes.added_value, X, known, self.y, self.splits, groups=self.groups
        )
        for part, result in found.items():
            probe = f"nested {'+'.join(columns)} {part}"
            self._note(result, model, probe, "careful", weights)
        return found


def endpoint(
    cohort: Cohort,
    protocol: str = "careful",
    *,
    n_repeats: int = 10,
    seed: int = 0,
    lesions: Iterable[str] | None = None,
) -> Endpoint:
    """Return the endpoint of a cohort under a protocol.

    Parameters
    ----------
    cohort : Cohort
        One with labels.
    protocol : {"careful", "published"}
        ``careful``: every lesion with a label by the rule of the card, splits by patient.
        ``published``: the lesions and the label of the publication, its ten splits by lesion.
    n_repeats, seed : int
        Of the splits by patient.
    lesions : iterable of str, optional
        Keep only these, for example those with released features.

    Raises
    ------
    ValueError
        If the cohort has no labels or the protocol is not known.
    """
    if protocol not in ("careful", "published"):
        raise ValueError(settings.unknown("protocol", protocol, ("careful", "published")))
    table = cohort.table.set_index("lesion_id")
    if lesions is not None:
        table = table[table.index.isin(list(lesions))]
    column = "label" if protocol == "careful" else "label_reference"
    if protocol == "published" and "used_in_reference" in table:
        table = table[table["used_in_reference"].astype(bool)]
    table = table[table[column].notna()]
    if table.empty:
        raise ValueError(f"{cohort.card.key} has no labels, so there is no endpoint to predict")
    y, groups = table[column].astype(int).rename("label"), table["patient_id"]
    if protocol == "published":
        seed, made = 10, splits.reference_splits(y)
    else:
        made = splits.grouped_splits(
            pd.DataFrame({"label": y, "patient_id": groups}), n_repeats=n_repeats, seed=seed
        )
    return Endpoint(cohort, protocol, table, y, groups, made, seed)


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
    images = [Path(path).stat() for path in table["image_path"].unique()]
    state = [(image.st_size, image.st_mtime_ns) for image in images]
    code = digests.of_file(handcrafted.__file__)
    digest = digests.of(cohort.card.key, cohort.edition, table, state, code)[:16]
    path = settings.cache_dir() / "handcrafted" / f"{digest}.parquet"
    if not path.exists():
        found = handcrafted.cohort_features(cohort)
        with atomic_path(path) as part:
            found.to_parquet(part)
    return pd.read_parquet(path)


def untrained_features(cohort: Cohort, model: str = "models_genesis") -> pd.DataFrame:
    """Return embeddings by a compact encoder with random weights: what the architecture gives.

    Parameters
    ----------
    cohort : Cohort
        One whose images are there.
    model : str
        Whose architecture.

    Returns
    -------
    DataFrame, index ``lesion_id``
    """
    store = EmbeddingStore(settings.cache_dir() / "untrained")
    report = embed(cohort, [Encoder(get_model(model))], store, progress=False)
    if report.failed:
        raise ValueError(f"{cohort.card.key} could not be embedded whole.\n{report}")
    return store.read(cohort, model).loc[list(cohort.table["lesion_id"])]
