"""ComBat against the authors' Python implementation, on training rows only, and on bad input."""

import numpy as np
import pandas as pd
import pytest

from tumorbench_utils.robustness import ComBat, RobustnessError

# neuroCombat 0.2.12 (Fortin et al.), parametric priors, no covariates, on `small()`.
NEUROCOMBAT = [
    [-0.94375, -1.50655, -0.40601, 0.69278],
    [1.5373, 0.01998, -0.87251, -0.75749],
    [1.04186, 1.64339, 0.39086, -1.29668],
    [-1.14347, 1.60614, 0.2838, -1.89725],
    [-0.02456, -1.33516, -0.98875, -0.40004],
    [-0.82981, 0.49157, -0.12305, -0.5216],
    [0.82803, 1.1826, -1.44384, -0.29404],
    [-0.97026, -0.12448, -0.98821, 0.07093],
    [0.24908, -0.29585, -0.67694, -0.47784],
    [-1.11387, -1.66482, 0.96384, -1.41792],
    [1.81256, 1.03469, -1.9014, 0.40229],
    [-1.71115, 0.12327, -0.65062, -2.31919],
    [-0.6726, -0.25353, 0.33955, -1.48755],
    [0.48784, -1.35267, -1.0551, -1.13614],
    [1.33756, 0.82083, 1.92512, 0.3911],
    [0.61572, 1.17677, -1.3528, -0.34264],
    [1.21924, -0.43737, -0.49422, -0.29214],
    [0.33367, -0.39565, -0.86203, -0.02111],
]


def small():
    """Eighteen lesions on three scanners that shift and stretch."""
    rng = np.random.default_rng(5)
    scanner = np.repeat(["A", "B", "C"], [6, 5, 7])
    X = rng.normal(size=(18, 4)) * np.where(scanner == "B", 2, 1)[:, None]
    shift = np.select([scanner == "A", scanner == "B"], [0, 1.5], -1)[:, None]
    return (X + shift * np.array([1, 0.8, 1.2, 1])).round(3), scanner


def simulated(seed=0):
    """Ninety lesions of three scanners with an offset and a scale of their own."""
    rng = np.random.default_rng(seed)
    scanner = pd.Series(np.repeat(list("ABC"), 30), index=[f"l{i}" for i in range(90)])
    offset = {s: rng.normal(m, 0.3, 12) for s, m in zip("ABC", (0, 2, -1), strict=True)}
    scale = dict(zip("ABC", (1.0, 2.0, 0.6), strict=True))
    rows = [offset[s] + scale[s] * rng.normal(size=12) for s in scanner]
    return pd.DataFrame(rows, index=scanner.index), scanner


def test_agrees_with_the_implementation_of_the_authors():
    X, scanner = small()
    found = ComBat().fit(X, scanner).transform(X, scanner)
    np.testing.assert_allclose(found, NEUROCOMBAT, atol=2e-5)


def test_one_feature_is_standardised_without_a_prior():
    X, scanner = small()
    found = ComBat().fit(X[:, :1], scanner).transform(X[:, :1], scanner)[:, 0]
    own = [found[scanner == s] for s in "ABC"]
    assert [part.mean() for part in own] == pytest.approx([X[:, 0].mean()] * 3)
    assert [part.std(ddof=1) for part in own] == pytest.approx([own[0].std(ddof=1)] * 3)


def test_offset_and_scale_are_taken_out_of_rows_that_were_not_fitted():
    X, scanner = simulated()
    train = X.index[np.arange(90) % 3 > 0]
    rest = X.index.difference(train)
    found = ComBat().fit(X.loc[train], scanner).transform(X.loc[rest], scanner)
    before, after = (Z.loc[rest].groupby(scanner).mean() for Z in (X, found))
    assert np.ptp(after, axis=0).mean() < 0.35 * np.ptp(before, axis=0).mean()
    assert found.index.equals(rest)


def test_the_fit_sees_training_rows_only_and_each_row_stands_alone():
    X, scanner = simulated()
    train, rest = X.index[:80:2], X.index[1::2]
    fitted = ComBat().fit(X.loc[train], scanner)
    alone = fitted.transform(X.loc[rest[:1]], scanner)
    wild = X.loc[rest].copy()
    wild.iloc[1:] = 1e6
    pd.testing.assert_frame_equal(alone, fitted.transform(wild, scanner).iloc[:1])


def test_rows_are_joined_to_scanners_by_name():
    X, scanner = simulated()
    fitted = ComBat().fit(X, scanner.sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(
        fitted.transform(X, scanner), ComBat().fit(X, scanner).transform(X, scanner)
    )


def test_constant_features_stay_as_they_are():
    X, scanner = simulated()
    X[3] = 7.0
    X[4] = scanner.map({"A": 0.0, "B": 1.0, "C": 2.0})
    found = ComBat().fit(X, scanner).transform(X, scanner)
    pd.testing.assert_frame_equal(found[[3, 4]], X[[3, 4]])
    rest = [c for c in X if c not in (3, 4)]
    alone = ComBat().fit(X[rest], scanner).transform(X[rest], scanner)
    pd.testing.assert_frame_equal(found[rest], alone)


def test_bad_input_is_named():
    X, scanner = simulated()
    fitted = ComBat().fit(X[scanner != "C"], scanner)
    with pytest.raises(RobustnessError, match="training rows: C"):
        fitted.transform(X, scanner)
    with pytest.raises(ValueError, match="shape"):
        fitted.transform(X.iloc[:5, :11], scanner)
    with pytest.raises(RobustnessError, match="look at 'l0'"):
        fitted.transform(X, scanner.drop("l0"))
    with pytest.raises(RobustnessError, match="missing or infinite"):
        ComBat().fit(X.where(X < 2), scanner)
    with pytest.raises(RobustnessError, match="scanners missing"):
        ComBat().fit(X.to_numpy(), scanner.where(scanner != "A").to_numpy())
    with pytest.raises(RobustnessError, match="5 rows where 90"):
        ComBat().fit(X.to_numpy(), scanner.to_numpy()[:5])
    with pytest.raises(RobustnessError, match="numbers"):
        ComBat().fit(X.astype(object).where(X < 2, "high"), scanner)
