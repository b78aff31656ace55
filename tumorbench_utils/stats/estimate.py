"""One shape for every result that has an interval."""

from typing import NamedTuple


class _Triple(NamedTuple):
    value: float
    low: float
    high: float


class Estimate(_Triple):
    """An estimate with its interval and the name of the method that gave the interval.

    Unpacks, indexes and compares as the tuple ``(value, low, high)``.

    Parameters
    ----------
    value, low, high : float
        The estimate and the ends of its interval.
    method : str
        How the interval was made, for example ``"DeLong"``.

    Examples
    --------
    >>> value, low, high = Estimate(0.8, 0.7, 0.9, "DeLong")
    >>> str(Estimate(0.8, 0.7, 0.9)).replace(chr(0xA0), " ")
    '0.80 (0.70 to 0.90)'
    """

    def __new__(cls, value, low, high, method=""):
        """Take the method apart from the three numbers."""
        self = super().__new__(cls, float(value), float(low), float(high))
        self.method = method
        return self

    def __repr__(self):
        return f"Estimate({self.value:.6g}, {self.low:.6g}, {self.high:.6g}, {self.method!r})"

    def __str__(self):
        if self.value != self.value:
            return "–"
        text = f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"
        return text.replace(" ", "\N{NO-BREAK SPACE}").replace("-0.00", "0.00")
