"""Shrink: moments of few samples, drawn towards what no sample has denied."""

import numpy as np

from ...passes.forms.metric import Moments


def shrunk(H: Moments, count: int) -> Moments:
    """(1 − ρ) H + ρ · mean(diag H) · I of every group, ρ by the oracle's own iteration.

    Of fewer samples than inputs a covariance has no full rank, and a fit in it is free to do
    anything in directions that other inputs will use. Chen, Wiesel, Eldar and Hero (2010),
    eq. (23) (OAS), has the ρ that lowers the expected error of a Gaussian covariance; it
    vanishes with many samples.

    Args:
        H: (g, n, n), symmetric, positive semi-definite.
        count: samples that it is from, at least 1.

    Example:
        >>> H = np.diag([2.0, 0.0])[None]
        >>> shrunk(H, 1)[0].diagonal(), shrunk(H, 10**9)[0].diagonal().round(6)
        (array([1., 1.]), array([2., 0.]))
    """
    n = H.shape[-1]
    found: list[Moments] = []
    for at in range(len(H)):
        S: Moments = H[at]
        square, trace = float(np.vdot(S, S)), float(np.trace(S))
        spread = square - trace**2 / n
        above = (1 - 2 / n) * square + trace**2
        below = (count + 1 - 2 / n) * spread
        rho = 1.0 if below <= above else above / below
        found.append((1 - rho) * S + rho * trace / n * np.eye(n))
    return np.stack(found)
