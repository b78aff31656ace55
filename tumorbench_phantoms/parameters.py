"""Read ``data/phantoms.yml``; ``data/phantoms.schema.json`` says what it may hold."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

#: Where the parameters are.
PARAMETERS = Path(__file__).resolve().parents[1] / "data" / "phantoms.yml"
_SCHEMA = PARAMETERS.with_suffix(".schema.json")

#: The quantities of a lesion, in the order in which they are drawn.
PHENOTYPE = (
    "diameter_mm",
    "lobulation",
    "spiculation",
    "attenuation_hu",
    "ground_glass",
    "texture_hu",
    "texture_length_mm",
    "necrosis",
    "calcification",
    "rim_hu",
)


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int) -> str:
    return json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")))


def load(path: Path | None = None) -> dict:
    """Return the parameters.

    Parameters
    ----------
    path : Path, optional
        A file laid out like ``data/phantoms.yml``, which is the default.
    """
    path = Path(path or PARAMETERS)
    return json.loads(_read(path, path.stat().st_mtime_ns))


def check(parameters: dict) -> None:
    """Hold parameters against the schema, and what a schema cannot say against common sense.

    Raises
    ------
    ValueError
        Naming the place of the first fault.
    """
    from jsonschema import Draft202012Validator  # takes seconds to import
    from jsonschema.exceptions import best_match

    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    if fault := best_match(Draft202012Validator(schema).iter_errors(parameters)):
        place = ", ".join(map(str, fault.absolute_path)) or "top level"
        raise ValueError(f"phantoms.yml, {place}: {fault.message}")
    for name, cohort in parameters["cohorts"].items():
        laws = {**cohort["phenotype"], **cohort.get("covariates", {})}
        outcome = cohort.get("outcome", {"weights": {}})
        follow = outcome.get("follow_up", {"days": [0, 1], "share": [1, 0]})
        days, share = np.array(follow["days"]), np.array(follow["share"])
        scanners = cohort["acquisition"]
        shares = [cohort["lesions_per_patient"], [s["share"] for s in scanners.values()]]
        shares += [list(law["levels"].values()) for law in laws.values() if "levels" in law]
        numbers = [v for law in laws.values() for v in law.values() if isinstance(v, float)]
        rules = {
            "every scanner is one of `scanners`": set(scanners) <= set(parameters["scanners"]),
            "shares sum to 1": np.allclose([sum(s) for s in shares], 1, atol=1e-6),
            "low is below high": all(w["low"] < w["high"] for w in laws.values() if "low" in w),
            "a median is above its floor": all(
                w.get("floor", 0) < w["median"] for w in laws.values() if w["law"] == "lognormal"
            ),
            "weights are of quantities of the cohort": set(outcome["weights"])
            <= {*laws, "patient_factor"},
            "days rise from 0 while share falls from 1 to 0": len(days) == len(share) > 1
            and days[0] == 0
            and (share[0], share[-1]) == (1, 0)
            and (np.diff(days) > 0).all()
            and (np.diff(share) <= 0).all(),
            "numbers are finite": np.isfinite([*numbers, outcome.get("intercept", 0)]).all(),
        }
        for rule, kept in rules.items():
            if not kept:
                raise ValueError(f"phantoms.yml, cohorts, {name}: {rule}, but not here")


def of_cohort(name: str, parameters: dict | None = None) -> dict:
    """Return what one cohort depends on: ``common``, its scanners, and its own section.

    Raises
    ------
    KeyError
        If there is no such cohort; the message names the known ones.
    """
    parameters = load() if parameters is None else parameters
    known = parameters["cohorts"]
    if name not in known:
        raise KeyError(f"unknown phantom cohort {name!r}: known are {', '.join(known)}")
    scanners = {key: parameters["scanners"][key] for key in known[name]["acquisition"]}
    return {"name": name, **parameters["common"], "scanners": scanners, **known[name]}
