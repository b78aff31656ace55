"""Read ``data/phantoms.yml`` and refuse what the generator would not understand."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import yaml

from tumorbench_utils import settings

#: Where the parameters are.
PARAMETERS = settings.BOOK_ROOT / "data" / "phantoms.yml"

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

_PAIR = {"L": "L", "R": "L", "A": "P", "P": "P", "I": "S", "S": "S"}
_COVARIATES = ("age", "sex", "stage", "histology", "clinrisk_score")
_FORMATS = ("mhd", "nii.gz", "nrrd")
_ORGANS = ("lung", "kidney", "liver")
_LAWS = {
    "lognormal": ({"median", "spread", "low", "high"}, {"floor", "with_size"}),
    "fraction": ({"median", "spread"}, {"with_size"}),
    "normal": ({"mean", "sd", "low", "high"}, {"with_size"}),
    "rare": ({"share", "median", "spread"}, {"with_size"}),
    "levels": ({"levels"}, {"with_size"}),
}


def _check(section: object, where: str, required: set, optional: set = frozenset()) -> dict:
    """Return a mapping whose keys are as they should be, else raise ValueError."""
    if not isinstance(section, dict):
        raise ValueError(f"phantoms.yml, {where}: expected a mapping, found {section!r}")
    known = [*required, *optional]
    for key in section:
        if key not in known:
            raise ValueError(f"phantoms.yml, {where}: {settings.unknown('key', key, known)}")
    missing = sorted(set(required) - set(section))
    if missing:
        raise ValueError(f"phantoms.yml, {where}: missing {', '.join(missing)}")
    return section


def _numbers(section: dict, where: str) -> None:
    """Raise ValueError if a value of the mapping is not a finite number."""
    for key, value in section.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError(f"phantoms.yml, {where}, {key}: expected a number, found {value!r}")


def _list(values: object, where: str) -> list:
    """Return a list of finite numbers, else raise ValueError."""
    if not isinstance(values, list):
        raise ValueError(f"phantoms.yml, {where}: expected a list of numbers, found {values!r}")
    _numbers(dict(enumerate(values)), where)
    return values


def _whole(value: object, low: int, where: str) -> None:
    """Raise ValueError if a value is not a whole number of at least `low`."""
    if type(value) is not int or value < low:
        raise ValueError(f"phantoms.yml, {where} must be a whole number, {low} or more")


def _shares(values, where: str) -> None:
    """Raise ValueError if shares are negative or do not sum to 1."""
    values = _list(values, where)
    if not values or min(values) < 0 or abs(sum(values) - 1) > 1e-6:
        raise ValueError(f"phantoms.yml, {where}: shares must be 0 or more and sum to 1: {values}")


def _check_law(law: object, where: str) -> None:
    """Check one quantity."""
    kind = law.get("law") if isinstance(law, dict) else None
    if kind not in _LAWS:
        raise ValueError(f"phantoms.yml, {where}: {settings.unknown('law', kind, _LAWS)}")
    required, optional = _LAWS[kind]
    _check(law, where, required | {"law"}, optional)
    _numbers({k: v for k, v in law.items() if k not in ("law", "levels")}, where)
    if kind == "levels":
        _check(law["levels"], where, set(law["levels"]))
        _shares(list(law["levels"].values()), where)
    for key in ("spread", "sd"):
        if key in law and law[key] <= 0:
            raise ValueError(f"phantoms.yml, {where}: {key} must be above 0")
    if kind in ("fraction", "rare") and not 0 < law["median"] < 1:
        raise ValueError(f"phantoms.yml, {where}: the median of a share lies between 0 and 1")
    if kind == "rare" and not 0 < law["share"] < 1:
        raise ValueError(f"phantoms.yml, {where}: share must lie between 0 and 1")
    if "low" in law and not law["low"] < law["high"]:
        raise ValueError(f"phantoms.yml, {where}: low must be below high")
    if kind == "lognormal" and not law.get("floor", 0) < law["median"]:
        raise ValueError(f"phantoms.yml, {where}: median must be above floor")
    if not -1 < law.get("with_size", 0) < 1:
        raise ValueError(f"phantoms.yml, {where}: with_size must lie between -1 and 1")


def _check_outcome(outcome: dict, where: str, known: set) -> None:
    """Check the outcome of a cohort."""
    kind = outcome.get("kind") if isinstance(outcome, dict) else None
    if kind == "label":
        _check(outcome, where, {"kind", "level", "intercept", "weights"})
        _numbers({"intercept": outcome["intercept"]}, where)
        if outcome["level"] not in ("lesion", "patient"):
            raise ValueError(f"phantoms.yml, {where}: level must be lesion or patient")
    elif kind == "survival":
        _check(outcome, where, {"kind", "alive_from", "shape", "scale", "weights", "follow_up"})
        follow = _check(outcome["follow_up"], f"{where}, follow_up", {"days", "share"})
        days, share = (
            np.array(_list(follow[key], f"{where}, follow_up, {key}")) for key in ("days", "share")
        )
        falling = len(days) == len(share) > 1 and share[0] == 1 and share[-1] == 0
        if not falling or (np.diff(days) <= 0).any() or (np.diff(share) > 0).any() or days[0] != 0:
            raise ValueError(
                f"phantoms.yml, {where}, follow_up: days must rise from 0, share fall from 1 to 0"
            )
        _numbers({k: outcome[k] for k in ("shape", "scale", "alive_from")}, where)
        if min(outcome["shape"], outcome["scale"], outcome["alive_from"]) <= 0:
            raise ValueError(f"phantoms.yml, {where}: shape, scale and alive_from must be above 0")
    else:
        raise ValueError(
            f"phantoms.yml, {where}: {settings.unknown('kind', kind, ['label', 'survival'])}"
        )
    _check(outcome["weights"], f"{where}, weights", set(), known | {"patient_factor"})
    _numbers(outcome["weights"], f"{where}, weights")


def _check_cohort(name: str, cohort: dict, scanners: dict) -> None:
    """Check the section of one cohort."""
    required = {"organ", "prefix", "patients", "lesions_per_patient", "format", "axes", "table_lps"}
    required |= {"field_mm", "acquisition", "phenotype"}
    _check(
        cohort, name, required, {"patient_share", "dicom_scans", "covariates", "outcome", "retest"}
    )
    if cohort["organ"] not in _ORGANS:
        raise ValueError(
            f"phantoms.yml, {name}: {settings.unknown('organ', cohort['organ'], _ORGANS)}"
        )
    if cohort["format"] not in _FORMATS:
        hint = settings.unknown("format", cohort["format"], _FORMATS)
        raise ValueError(f"phantoms.yml, {name}: {hint}")
    _whole(cohort["patients"], 1, f"{name}: patients")
    _whole(cohort.get("dicom_scans", 0), 0, f"{name}: dicom_scans")
    if not isinstance(cohort["prefix"], str) or not cohort["prefix"].isalnum():
        raise ValueError(f"phantoms.yml, {name}: prefix must be letters and digits")
    axes = cohort["axes"]
    if not isinstance(axes, str) or sorted("".join(_PAIR.get(c, "?") for c in axes)) != list("LPS"):
        raise ValueError(
            f"phantoms.yml, {name}: axes must be one of L or R, one of A or P and one of I or S, "
            f"in any order, not {axes!r}"
        )
    for key, low, high in (("field_mm", 20, 150), ("patient_share", 0, 1)):
        number = cohort.get(key, low)
        _numbers({key: number}, name)
        if not low <= number <= high:
            raise ValueError(f"phantoms.yml, {name}: {key} must lie between {low} and {high}")
    _shares(cohort["lesions_per_patient"], f"{name}, lesions_per_patient")
    _check(cohort["acquisition"], f"{name}, acquisition", set(), set(scanners))
    for key, settings_ in cohort["acquisition"].items():
        where = f"{name}, acquisition, {key}"
        _check(settings_, where, {"share", "spacing_mm", "slice_mm", "thickness_mm"})
        _numbers(settings_, where)
        for length in ("spacing_mm", "slice_mm", "thickness_mm"):
            if settings_[length] <= 0:
                raise ValueError(f"phantoms.yml, {where}: {length} must be above 0")
    _shares([s["share"] for s in cohort["acquisition"].values()], f"{name}, acquisition")
    table = _check(cohort["table_lps"], f"{name}, table_lps", {"mean", "sd"})
    for key, values in table.items():
        if len(_list(values, f"{name}, table_lps, {key}")) != 3 or (
            key == "sd" and min(values) < 0
        ):
            raise ValueError(f"phantoms.yml, {name}, table_lps, {key}: expected x, y and z in mm")
    _check(cohort["phenotype"], f"{name}, phenotype", {"diameter_mm"}, set(PHENOTYPE))
    covariates = cohort.get("covariates", {})
    _check(covariates, f"{name}, covariates", set(), set(_COVARIATES))
    laws = {**cohort["phenotype"], **covariates}
    for key, law in laws.items():
        _check_law(law, f"{name}, {key}")
    if "retest" in cohort:
        keys = {"shift_sd_mm", "breath_sd_hu", "table_sd_mm"}
        _numbers(_check(cohort["retest"], f"{name}, retest", keys), f"{name}, retest")
    if "outcome" in cohort:
        _check_outcome(cohort["outcome"], f"{name}, outcome", set(laws))


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> str:
    """Return the checked parameters as JSON; `stamp` changes when the file does."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {error}") from error
    _check(content, "top level", {"common", "scanners", "cohorts"})
    _check(content["common"], "common", {"seed", "click_sd_mm", "size_error"})
    _numbers(content["common"], "common")
    _whole(content["common"]["seed"], 0, "common: seed")
    for key in ("scanners", "cohorts"):
        if not isinstance(content[key], dict) or not content[key]:
            raise ValueError(f"phantoms.yml, {key}: expected a mapping, found {content[key]!r}")
    for key, scanner in content["scanners"].items():
        where = f"scanners, {key}"
        _numbers(_check(scanner, where, {"sharpness", "noise_hu", "hu_shift"}), where)
    for name, cohort in content["cohorts"].items():
        _check_cohort(name, cohort, content["scanners"])
    return json.dumps(content)


def load(path: Path | None = None) -> dict:
    """Return the checked parameters.

    Parameters
    ----------
    path : Path, optional
        A file laid out like ``data/phantoms.yml``, which is the default.

    Raises
    ------
    ValueError
        If a key is unknown or missing or a value is of the wrong kind; the message says where.
    """
    path = Path(path or PARAMETERS)
    return json.loads(_read(path, path.stat().st_mtime_ns))


def of_cohort(name: str, parameters: dict | None = None) -> dict:
    """Return what one cohort depends on: ``common``, its scanners, and its own section.

    Raises
    ------
    KeyError
        If there is no such cohort; the message names the known ones.
    """
    parameters = load() if parameters is None else parameters
    if name not in parameters["cohorts"]:
        raise KeyError(settings.unknown("phantom cohort", name, parameters["cohorts"]))
    cohort = parameters["cohorts"][name]
    scanners = {key: parameters["scanners"][key] for key in cohort["acquisition"]}
    return {"name": name, **parameters["common"], "scanners": scanners, **cohort}


def fingerprint(parameters: dict) -> str:
    """Return a SHA-256 over the parameters of a cohort."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
