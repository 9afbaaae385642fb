"""Which entries pruning keeps, and with which values: the exact plain solutions."""

import math

import numpy as np
import numpy.typing as npt

from ....device_profiles.errors import RankError

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]


def largest(scores: Floats, count: int) -> Positions:
    """Positions of the `count` largest scores, increasing: the ℓ0 constraint's solution.

    argmin of ‖W − S‖² with ‖S‖₀ ≤ κ keeps the largest |w|.

    Args:
        scores: any shape, not negative; positions count its entries in order.
        count: 0 ≤ count ≤ scores.size.

    Example:
        >>> largest(np.array([3.0, 1.0, 2.0]), 2)
        array([0, 2])
    """
    flat = scores.reshape(-1)
    if count >= flat.size:
        return np.arange(flat.size)
    if count <= 0:
        return np.zeros(0, np.int64)
    least = np.partition(flat, flat.size - count)[flat.size - count]
    above = np.flatnonzero(flat > least)
    ties = np.flatnonzero(flat == least)[: count - len(above)]
    return np.sort(np.concatenate([above, ties]))


def ball(w: Floats, radius: float) -> npt.NDArray[np.float64]:
    """The point of the ℓ1 ball nearest to w: argmin of ‖w − s‖² with ‖s‖₁ ≤ radius.

    Duchi, Shalev-Shwartz, Singer and Chandra (ICML 2008), figure 1: soft thresholding by the
    one θ that reaches the sphere.

    Example:
        >>> ball(np.array([3.0, 1.0]), 2.0)
        array([2., 0.])
    """
    v = w.astype(np.float64)
    magnitude = np.abs(v).reshape(-1)
    if magnitude.sum() <= radius:
        return v
    ordered = np.sort(magnitude)[::-1]
    excess = np.cumsum(ordered) - radius
    counts = np.arange(1, len(ordered) + 1)
    last = int(np.flatnonzero(ordered * counts > excess)[-1])
    return soft(v, float(excess[last] / counts[last]))


def soft(w: Floats, threshold: float) -> npt.NDArray[np.float64]:
    """argmin of ½ ‖w − s‖² + threshold · ‖s‖₁: every entry nearer to zero by the threshold."""
    v = w.astype(np.float64)
    return np.sign(v) * np.maximum(np.abs(v) - threshold, 0.0)


def hard(w: Floats, threshold: float) -> npt.NDArray[np.float64]:
    """argmin of ‖w − s‖² + threshold² · ‖s‖₀: entries above the threshold stay as they are."""
    v = w.astype(np.float64)
    return np.where(np.abs(v) > threshold, v, 0.0)


def kept_count(kappa: float, size: int) -> int:
    """κ of `size` weights: a whole number as it is, a share rounded down.

    Example:
        >>> kept_count(0.03, 512 * 4608), kept_count(7, 10)
        (70778, 7)

    Raises:
        RankError: more are asked for than there are.
    """
    if isinstance(kappa, int):
        if kappa > size:
            raise RankError(
                f"kappa={kappa} corrections are more than the {size} weights",
                hint=f"choose kappa ≤ {size}, or a share such as 0.01",
            )
        return kappa
    return math.floor(kappa * size * (1 + 1e-12))
