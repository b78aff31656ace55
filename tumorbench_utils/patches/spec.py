"""What a network wants to see, and the error for everything that cannot be given to it."""

import math
import numbers
from dataclasses import dataclass

#: World axis (0 = x, 1 = y, 2 = z) and its sign in RAS of each letter.
AXIS_LETTERS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}

#: A side longer than this is a mistake: such a patch would need gigabytes.
MAX_SIDE = 1024


class PatchError(ValueError):
    """A patch cannot be cut: the message names the file, what is wrong and what to do."""


def _numbers(name: str, value: object, length: int) -> tuple[float, ...]:
    """Return `value` as a tuple of finite floats, or raise a PatchError that names the field."""
    try:
        items = tuple(value)
    except TypeError:
        items = ()
    if isinstance(value, str) or len(items) != length:
        raise PatchError(f"PatchSpec: {name} must hold {length} numbers, got {value!r}")
    for item in items:
        real = isinstance(item, numbers.Real) and not isinstance(item, bool)
        if not real or not math.isfinite(item):
            raise PatchError(f"PatchSpec: {name} must hold finite numbers, got {value!r}")
    return tuple(float(item) for item in items)


@dataclass(frozen=True)
class PatchSpec:
    """What a network wants to see of a scan.

    Parameters
    ----------
    orientation : str
        Three letters, one of each pair R/L, A/P, S/I: the directions in which the three array
        axes run. ``"SPL"``: the first axis towards the head, the second towards the back, the
        third to the patient's left.
    spacing_mm : tuple of 3 floats
        Sampling distances in mm along the world axes x (left-right), y (front-back) and
        z (foot-head), whatever the orientation.
    size : tuple of 3 ints
        Voxels along the three array axes, in the order of `orientation`; from 2 to 1024. The
        benchmark cuts an odd side one voxel short and fills it up with 0 at the end.
    window_hu : tuple of 2 floats
        The two values, in HU, that become the ends of `out_range`; beyond them is clipped.
    out_range : tuple of 2 floats
        Smallest and largest value of the patch.

    Raises
    ------
    PatchError
        If a field is none of this. Lists are taken and kept as tuples, so that a spec can be
        compared and used as the key of a dictionary.
    """

    orientation: str = "RAS"
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    size: tuple[int, int, int] = (48, 48, 48)
    window_hu: tuple[float, float] = (-1024.0, 2048.0)
    out_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        code = self.orientation
        known = isinstance(code, str) and len(code) == 3 and set(code) <= set(AXIS_LETTERS)
        if not known or {AXIS_LETTERS[letter][0] for letter in code} != {0, 1, 2}:
            raise PatchError(
                f"PatchSpec: orientation {code!r} is none; give three capital letters, one of each "
                "pair R/L, A/P, S/I, for example 'RAS' or 'SPL'"
            )
        spacing = _numbers("spacing_mm", self.spacing_mm, 3)
        if min(spacing) <= 0:
            raise PatchError(f"PatchSpec: spacing_mm must be above 0, got {self.spacing_mm!r}")
        sides = _numbers("size", self.size, 3)
        if any(side != int(side) or not 2 <= side <= MAX_SIDE for side in sides):
            raise PatchError(
                f"PatchSpec: size must hold whole numbers from 2 to {MAX_SIDE}, got {self.size!r}"
            )
        for name in ("window_hu", "out_range"):
            pair = _numbers(name, getattr(self, name), 2)
            if not pair[0] < pair[1]:
                raise PatchError(
                    f"PatchSpec: {name} must rise, lower value first, got {getattr(self, name)!r}"
                )
            object.__setattr__(self, name, pair)
        object.__setattr__(self, "spacing_mm", spacing)
        object.__setattr__(self, "size", tuple(int(side) for side in sides))

    @property
    def world_size(self) -> tuple[int, int, int]:
        """Voxels along the world axes x, y, z: `size` in another order."""
        axes = [AXIS_LETTERS[letter][0] for letter in self.orientation]
        return tuple(self.size[axes.index(axis)] for axis in range(3))
