"""The feature files that the authors released: read safely, pooled as published, joined by seed.

Source: AIM-Harvard/TumorImagingBench on GitHub (Git LFS). A file is a pickle of ``{extractor:
{"train" | "val" | "test": [{"feature": array, "row": row of the cohort table}, ...]}}``. It is
never unpickled; see :mod:`tumorbench_utils.embeddings.inert`.
"""

import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from tumorbench_utils import cohorts, digests, settings
from tumorbench_utils.cohorts import card
from tumorbench_utils.embeddings.inert import UnsafeFileError, array, kind_of, read_inert, series
from tumorbench_utils.embeddings.parquet import columns

#: Two seeds closer than this (mm) are the same: the tables hold 5 digits after the point or more.
SAME_SEED_MM = 0.01


class Layout(NamedTuple):
    """How a released extractor's features are laid out: model, width, and what is averaged.

    `axes` are those over which the published analysis takes the mean of unpooled features, `ndim`
    their number of dimensions. What is left is (1, dim) or (dim,).
    """

    model: str
    dim: int
    ndim: int = 0
    axes: tuple[int, ...] = ()


#: The released extractors by the name in the files.
EXTRACTORS = {
    "CTClipVitExtractor": Layout("ct_clip_vit", 512, 5, (1, 2, 3)),
    "CTFMExtractor": Layout("ct_fm", 512),
    "FMCIBExtractor": Layout("fmcib", 4096),
    "MedImageInsightExtractor": Layout("medimageinsight", 1024, 2, (0,)),
    "MerlinExtractor": Layout("merlin", 512),
    "ModelsGenExtractor": Layout("models_genesis", 4096),
    "PASTAExtractor": Layout("pasta", 1024, 5, (2, 3, 4)),
    "SUPREMExtractor": Layout("suprem", 512),
    "VISTA3DExtractor": Layout("vista3d", 768),
    "VocoExtractor": Layout("voco", 3072),
}

_SUFFIX = re.compile(r"\.(nii|nii\.gz|mhd|mha|nrrd)$")
_SPLITS = ("train", "val", "test")


def import_released(
    path: str | os.PathLike,
    cohort_name: str,
    *,
    sha256: str | None = None,
    table: pd.DataFrame | None = None,
) -> dict[str, pd.DataFrame]:
    """Read a released feature file without running anything in it.

    Parameters
    ----------
    path : path-like
        The file.
    cohort_name : str
        Cohort whose released table names the lesions.
    sha256 : str, optional
        What the file's SHA-256 must be; :data:`~tumorbench_utils.embeddings.RELEASED_FILES` has
        those of the released files.
    table : DataFrame, optional
        Table to join to, with ``lesion_id, patient_id, scan_id, coord_x, coord_y, coord_z``. If
        None, that of ``load_cohort(cohort_name, "released")``, which needs ``TUMORBENCH_DATA``.

    Returns
    -------
    dict of str to DataFrame
        By model: index ``lesion_id`` in the order of the table, float32 columns ``f0 .. f{d-1}``.
        Unpooled features are averaged as the published analysis does (CT-CLIP and PASTA over
        their grid, MedImageInsight over slices). ``attrs["unmatched"]`` lists the rows of the
        file that are left out (``split, position, reason``); a warning counts them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If the cohort is not known.
    UnsafeFileError
        A ``ValueError``. If the file is cut off, has another checksum, refers to anything but
        arrays and rows of a table, is laid out otherwise, or is that of another cohort.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no feature file {path}")
    card(cohort_name)
    try:
        _check_sum(path, sha256)
        content = path.read_bytes()
        if content.startswith(b"version https://git-lfs"):
            raise UnsafeFileError(
                "this is a Git LFS pointer, not the file; run `git lfs pull` or "
                f"`tumorbench import-released {cohort_name}`"
            )
        entries = _entries(read_inert(content))
        if table is None:
            table = cohorts.load_cohort(cohort_name, "released").table
        return _join(entries, table, cohort_name)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{path}: {error}") from None


def _check_sum(path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    if not isinstance(sha256, str) or not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 is 64 hexadecimal digits, not {sha256!r}")
    found = digests.of_file(path)
    if found != sha256.lower():
        raise UnsafeFileError(
            f"the SHA-256 is {found} ({path.stat().st_size} bytes), not {sha256.lower()}; the "
            "download is cut off or this is another file. Nothing in it was read"
        )


class _Entry(NamedTuple):
    """One lesion of one model in a file: where it stands, its row and its features, not decoded."""

    split: str
    position: int
    row: object
    feature: object


def _entries(content) -> dict[str, list[_Entry]]:
    """Return the entries of a file by extractor after checking its layout."""
    if type(content) is not dict or not content:
        raise UnsafeFileError(f"a feature file is a dict of extractors; {kind_of(content)} came")
    unknown = [name for name in content if type(name) is not str or name not in EXTRACTORS]
    if unknown:
        raise UnsafeFileError(settings.unknown("extractor", unknown[0], EXTRACTORS))
    found = {}
    for name, splits in content.items():
        if type(splits) is not dict or not splits or not set(splits) <= set(_SPLITS):
            raise UnsafeFileError(f"{name} is not a dict with {', '.join(_SPLITS)}")
        found[name] = []
        for split, items in splits.items():
            if type(items) is not list:
                raise UnsafeFileError(f"{name}/{split} is not a list")
            for n, item in enumerate(items):
                if type(item) is not dict or set(item) != {"feature", "row"}:
                    raise UnsafeFileError(f"{name}/{split}/{n} is not a feature and a row")
                found[name].append(_Entry(split, n, item["row"], item["feature"]))
    return found


def _features(name: str, value) -> np.ndarray:
    """Return the pooled features of one entry, float32 of shape (dim,)."""
    layout, values = EXTRACTORS[name], array(value)
    shape = values.shape
    if values.dtype.kind != "f":
        raise UnsafeFileError(f"features are floating-point numbers, not {values.dtype}")
    if layout.axes and values.ndim == layout.ndim and 0 not in shape:
        values = values.mean(axis=layout.axes)
    if values.shape not in ((layout.dim,), (1, layout.dim)):
        raise UnsafeFileError(f"features of shape {shape}; {layout.model} has {layout.dim}")
    with np.errstate(over="ignore"):
        return values.reshape(-1).astype(np.float32)


def _join(entries: dict, table: pd.DataFrame, cohort: str) -> dict[str, pd.DataFrame]:
    """Return a frame for each extractor, its rows named by the lesion with the same seed."""
    matcher = _Matcher(table)
    order = {lesion: n for n, lesion in enumerate(table["lesion_id"])}
    frames = {}
    for name, items in entries.items():
        chosen, unmatched = _assign(name, items, matcher)
        if not chosen:
            reason = f"; the first: {unmatched[0]['reason']}" if unmatched else ""
            raise UnsafeFileError(
                f"none of the {len(items)} rows of {name} is a lesion of {cohort}{reason}. Is it "
                "the file of another cohort?"
            )
        ids = sorted(chosen, key=order.get)
        values, good = np.empty((len(ids), EXTRACTORS[name].dim), np.float32), []
        for n, lesion in enumerate(ids):
            entry = chosen[lesion]
            try:
                values[n] = _features(name, entry.feature)
            except UnsafeFileError as error:
                raise UnsafeFileError(f"{name}/{entry.split}/{entry.position}: {error}") from None
            good.append(bool(np.isfinite(values[n]).all()))
            if not good[-1]:
                unmatched.append(_left_out(entry, f"the features of {lesion} are not finite"))
        index = pd.Index(np.array(ids, object)[good], name="lesion_id", dtype=object)
        frame = pd.DataFrame(values[good], index=index, columns=columns(values.shape[1]))
        frame.attrs["unmatched"] = unmatched
        frames[EXTRACTORS[name].model] = frame
    left_out = max(len(frame.attrs["unmatched"]) for frame in frames.values())
    if left_out:
        warnings.warn(
            f"{left_out} rows of the feature file are no lesions of the {cohort} table; "
            'attrs["unmatched"] of each frame lists them',
            stacklevel=3,
        )
    return frames


def _left_out(entry: _Entry, reason: str) -> dict:
    return {"split": entry.split, "position": entry.position, "reason": reason}


def _assign(name: str, items: list[_Entry], matcher) -> tuple[dict[str, _Entry], list[dict]]:
    """Return {lesion: entry} and the entries that belong to none."""
    claims: dict[str, list[tuple[bool, _Entry]]] = {}
    unmatched = []
    for entry in items:
        try:
            row = series(entry.row)
        except UnsafeFileError as error:
            raise UnsafeFileError(f"{name}/{entry.split}/{entry.position}: {error}") from None
        lesion, named, reason = matcher.find(row)
        if lesion is None:
            unmatched.append(_left_out(entry, reason))
        else:
            claims.setdefault(lesion, []).append((named, entry))
    chosen = {}
    for lesion, claimants in claims.items():
        best = next((entry for named, entry in claimants if named), claimants[0][1])
        chosen[lesion] = best
        for _, entry in claimants:
            if entry is not best:
                unmatched.append(_left_out(entry, f"the same seed as another row ({lesion})"))
    return chosen, unmatched


class _Matcher:
    """Finds the lesion of a row: the same seed, and where several have it, the same names."""

    def __init__(self, table: pd.DataFrame):
        self.names = table[["lesion_id", "scan_id", "patient_id"]].astype(str).to_numpy()
        self.tree = cKDTree(table[["coord_x", "coord_y", "coord_z"]].to_numpy(dtype=float))
        self.excluded = {e["lesion_id"]: e["reason"] for e in table.attrs.get("excluded", ())}

    def find(self, row: dict) -> tuple[str | None, bool, str]:
        """Return the lesion (or None), whether the row names it, and why there is none."""
        texts = [value for value in row.values() if type(value) is str]
        for text in texts:
            if text in self.excluded:
                return None, False, f"{text} is left out of the cohort: {self.excluded[text]}"
        seed = [row.get(f"coord{axis}") for axis in "XYZ"]
        if not all(type(v) in (int, float) and abs(v) < 1e6 for v in seed):
            return None, False, "the row has no coordX, coordY, coordZ"
        where = "({:.3f}, {:.3f}, {:.3f})".format(*seed)
        near = self.tree.query_ball_point(seed, SAME_SEED_MM)
        there = len(near)
        if len(near) > 1:
            parts = {_SUFFIX.sub("", part) for text in texts for part in re.split(r"[/\\]", text)}
            exact = [n for n in near if self.names[n, 0] in parts]
            near = exact or [n for n in near if not parts.isdisjoint(self.names[n])]
        if len(near) != 1:
            what = f"{there} lesions of the table have the seed {where} mm; the row names not one"
            return None, False, what if there else f"no lesion of the table has the seed {where} mm"
        lesion = str(self.names[near[0], 0])
        return lesion, lesion in texts, ""
