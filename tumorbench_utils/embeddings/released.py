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
from tumorbench_utils.embeddings.inert import (
    UnsafeFileError,
    array,
    kind_of,
    need,
    read_inert,
    series,
)
from tumorbench_utils.embeddings.store import columns

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
        content, found = path.read_bytes(), digests.of_file(path)
        other = f"the SHA-256 is {found}, not {sha256}: cut off, or another file; it was not read"
        need(sha256 is None or found == str(sha256).lower(), other)
        pointer = content.startswith(b"version https://git-lfs")
        need(not pointer, "this is a Git LFS pointer, not the file; run `git lfs pull`")
        entries = _entries(read_inert(content), 16 * len(content) + 2**20)
        if table is None:
            table = cohorts.load_cohort(cohort_name, "released").table
        matcher = _Matcher(table)
        frames = {EXTRACTORS[name].model: matcher.join(rows) for name, rows in entries.items()}
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{path}: {error}") from None
    left_out = max(len(frame.attrs["unmatched"]) for frame in frames.values())
    if left_out:
        warnings.warn(
            f"{left_out} rows of the feature file are no lesions of the {cohort_name} table; "
            'attrs["unmatched"] of each frame lists them',
            stacklevel=2,
        )
    return frames


class _Entry(NamedTuple):
    """One lesion of one model in a file: where it stands, its row and its pooled features."""

    split: str
    position: int
    row: dict
    values: np.ndarray


def _entries(content, budget: int) -> dict[str, list[_Entry]]:
    """Return the entries of a file by extractor after checking its layout.

    All features together may have `budget` bytes: one array that a small file names a million
    times would keep a computer busy for days.
    """
    sound = type(content) is dict and content
    need(sound, f"a feature file is a dict of extractors; {kind_of(content)} came")
    found = {}
    for name, splits in content.items():
        need(name in EXTRACTORS, settings.unknown("extractor", name[:80], EXTRACTORS))
        sound = type(splits) is dict and splits and set(splits) <= {"train", "val", "test"}
        need(sound, f"{name} is not a dict with train, val, test")
        found[name] = []
        for split, items in splits.items():
            need(type(items) is list, f"{name}/{split} is not a list")
            for n, item in enumerate(items):
                try:
                    sound = type(item) is dict and set(item) == {"feature", "row"}
                    need(sound, "it is not a feature and a row")
                    values = array(item["feature"])
                    budget -= values.nbytes
                    need(budget > 0, "the features together are larger than the file can hold")
                    entry = _Entry(split, n, series(item["row"]), _pooled(EXTRACTORS[name], values))
                except Exception as error:  # what is odd inside can break anything
                    raise UnsafeFileError(f"{name}/{split}/{n}: {error}") from None
                found[name].append(entry)
    return found


def _pooled(layout: Layout, values: np.ndarray) -> np.ndarray:
    """Return the pooled features of one entry, float32 of shape (dim,)."""
    shape = values.shape
    need(values.dtype.kind == "f", f"features are floating-point numbers, not {values.dtype}")
    if layout.axes and values.ndim == layout.ndim:
        values = values.mean(axis=layout.axes)
    fits = values.shape in ((layout.dim,), (1, layout.dim))
    need(fits, f"features of shape {shape}; {layout.model} has {layout.dim}")
    with np.errstate(over="ignore"):
        return values.reshape(-1).astype(np.float32)


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
        near = same = self.tree.query_ball_point(seed, SAME_SEED_MM)
        if len(same) > 1:
            parts = {_SUFFIX.sub("", part) for text in texts for part in re.split(r"[/\\]", text)}
            exact = [n for n in same if self.names[n, 0] in parts]
            near = exact or [n for n in same if not parts.isdisjoint(self.names[n])]
        if len(near) != 1:
            what = f"{len(same) or 'no'} lesions of the table have the seed {where} mm"
            return None, False, f"{what}; the row names not one of them" if same else what
        lesion = str(self.names[near[0], 0])
        return lesion, lesion in texts, ""

    def join(self, entries: list[_Entry]) -> pd.DataFrame:
        """Return the features of an extractor by lesion, in the order of the table."""
        chosen, unmatched = {}, []
        found = [(entry, *self.find(entry.row)) for entry in entries]
        # Where two rows have the seed of a lesion, that which names it comes first.
        for entry, lesion, _, reason in sorted(found, key=lambda item: not item[2]):
            if lesion in chosen:
                reason = f"the same seed as another row ({lesion})"
            elif lesion is not None and not np.isfinite(entry.values).all():
                reason = f"the features of {lesion} are not finite"
            if reason:
                place = {"split": entry.split, "position": entry.position}
                unmatched.append({**place, "reason": reason})
            else:
                chosen[lesion] = entry.values
        need(chosen, f"no row is a lesion; is it of another cohort? {unmatched[:1]}")
        ids = [lesion for lesion in self.names[:, 0] if lesion in chosen]
        index = pd.Index(ids, name="lesion_id", dtype=object)
        values = np.stack([chosen[lesion] for lesion in ids])
        frame = pd.DataFrame(values, index=index, columns=columns(values.shape[1]))
        frame.attrs["unmatched"] = unmatched
        return frame
