"""A share of so many cases, with Wilson's 95 % interval."""

from math import sqrt

Z = 1.959964


def wilson(part: int, whole: int) -> tuple[float, float]:
    """Return the interval, 0-1, in which the share lies that `part` of `whole` was drawn from."""
    if not whole:
        return 0.0, 1.0
    share, square = part / whole, Z * Z
    middle = (share + square / (2 * whole)) / (1 + square / whole)
    half = Z * sqrt(share * (1 - share) / whole + square / (4 * whole * whole))
    half /= 1 + square / whole
    return max(0.0, middle - half), min(1.0, middle + half)


def told(part: int, whole: int) -> str:
    """Return the share as text: `62/66 = 0.939 (0.855-0.976)`."""
    if not whole:
        return "0/0"
    low, high = wilson(part, whole)
    return f"{part}/{whole} = {part / whole:.3f} ({low:.3f}-{high:.3f})"
