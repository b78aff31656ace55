"""What a network wants to see, and the error for everything that cannot be given to it."""

from dataclasses import dataclass
from functools import partial

from tumorbench_utils import checks
from tumorbench_utils.checks import InputError, numbers

#: World axis (0 = x, 1 = y, 2 = z) and its sign in RAS of each letter.
AXIS_LETTERS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}

#: A side longer than this is a mistake: such a patch would need gigabytes.
MAX_SIDE = 1024


class PatchError(InputError):
    """A patch cannot be cut: the message names the file, what is wrong and what to do."""


require = partial(checks.require, error=PatchError)


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

    See Also
    --------
    monai.transforms.Orientation, monai.transforms.Spacing, monai.transforms.ScaleIntensityRange :
        The steps of the published chain that a spec stands for.
    """

    orientation: str = "RAS"
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    size: tuple[int, int, int] = (48, 48, 48)
    window_hu: tuple[float, float] = (-1024.0, 2048.0)
    out_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        axes = sorted(AXIS_LETTERS.get(letter, (9, 0))[0] for letter in str(self.orientation))
        example = "three capital letters, one of each pair R/L, A/P, S/I, for example 'RAS'"
        known = isinstance(self.orientation, str) and axes == [0, 1, 2]
        require(known, f"PatchSpec: orientation must be {example}, not {self.orientation!r}")
        for name, n in (("spacing_mm", 3), ("size", 3), ("window_hu", 2), ("out_range", 2)):
            values = numbers(getattr(self, name), f"PatchSpec: {name}", n=n, error=PatchError)
            right = values[0] < values[1] if n == 2 else values.min() > 0
            if name == "size":
                right = (values == values.round()).all() and 2 <= values.min()
                right, values = right and values.max() <= MAX_SIDE, values.astype(int)
            rules = f"window and range rise, spacings are above 0, sizes whole from 2 to {MAX_SIDE}"
            require(right, f"PatchSpec: {name} is {values.tolist()}, but {rules}")
            object.__setattr__(self, name, tuple(values.tolist()))

    @property
    def world_size(self) -> tuple[int, int, int]:
        """Voxels along the world axes x, y, z: `size` in another order."""
        axes = [AXIS_LETTERS[letter][0] for letter in self.orientation]
        return tuple(self.size[axes.index(axis)] for axis in range(3))
