"""Metric: the norm in which a fit is judged, from second moments of what a layer reads."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..geometry import Weights

Moments = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Metric:
    """‖(W − Ŵ) H^½‖²_F = Σ_g tr(R_g H_g R_gᵀ): the error of the layer's output.

    With H = E[x xᵀ] of the patches x that the layer multiplies this is the expected squared
    error of its outputs; with H the centred covariance it is what remains once the bias has
    taken over (W − Ŵ) E[x].

    Args:
        H: (g, n, n) symmetric, positive semi-definite, float64; n = c · κ in the order of
            W.reshape(g, m, n). None is the identity: the weights' own Frobenius norm.
    """

    H: Moments | None = None

    @property
    def is_identity(self) -> bool:
        """Whether it is the plain Frobenius norm."""
        return self.H is None

    @cached_property
    def is_round(self) -> bool:
        """Whether every group's moments are the same multiple of I: the plain norm, scaled."""
        if self.H is None:
            return True
        n = self.H.shape[-1]
        level = float(self.H[0, 0, 0])
        if level <= 0 or np.count_nonzero(self.H) != len(self.H) * n:
            return False
        return all(np.array_equal(np.diagonal(H), np.full(n, level)) for H in self.H)

    def energy(self, W: Weights) -> float:
        """‖W H^½‖²_F, summed in float64."""
        rows = W.reshape(*W.shape[:2], -1)
        if self.H is not None:
            return self.squared(rows)
        total = 0.0
        for row in rows.reshape(-1, rows.shape[-1]):
            wide: Moments = row.astype(np.float64)
            total += float(np.vdot(wide, wide))
        return total

    def squared(self, R: Weights) -> float:
        """Σ_g tr(R_g H_g R_gᵀ), summed in float64.

        Args:
            R: (g, m, c, *kernel), a difference of weights.
        """
        flat = R.reshape(*R.shape[:2], -1).astype(np.float64, copy=False)
        if self.H is None:
            return float(np.vdot(flat, flat))
        return float(np.vdot(flat @ self.H, flat))

    def damped(self, share: float) -> "Metric":
        """H + share · mean(diag H) · I: safe to invert where H has no full rank.

        A group whose moments are all zero (it never saw anything) gets the identity.
        """
        if self.H is None:
            return self
        n = self.H.shape[-1]
        mean = np.trace(self.H, axis1=1, axis2=2) / n
        level = np.where(mean > 0, share * mean, 1.0)
        return Metric(self.H + level[:, None, None] * np.eye(n))

    def roots(self) -> tuple[Moments, Moments]:
        """H^½ and H^-½ (g, n, n), symmetric; directions that H does not see count as zero."""
        assert self.H is not None, "the identity has no need of roots"
        values, vectors = np.linalg.eigh(self.H)
        values = np.maximum(values, 0.0)
        least = values.max(axis=1, keepdims=True) * self.H.shape[-1] * np.finfo(float).eps
        root = np.sqrt(values)
        inverse = np.where(values > least, 1 / np.where(root > 0, root, 1.0), 0.0)
        turned = vectors.swapaxes(1, 2)
        return (vectors * root[:, None]) @ turned, (vectors * inverse[:, None]) @ turned

    def of_channels(self, start: int, stop: int, channels: int) -> "Metric":
        """The metric of input channels start … stop alone, of `channels` in a group."""
        if self.H is None:
            return self
        per = self.H.shape[-1] // channels
        part = slice(start * per, stop * per)
        return Metric(np.ascontiguousarray(self.H[:, part, part]))


def lower_root(H: Moments) -> Moments:
    """L with L Lᵀ = H, lower triangular, of each of (…, n, n).

    Moments are sums of products in single precision: what should be zero may be a little
    below, more than damping makes up for where one direction outweighs all others by far. Such
    eigenvalues are raised to the rounding error of the largest.
    """
    try:
        return np.linalg.cholesky(H).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(H)
        least = np.finfo(np.float32).eps * values.max(axis=-1, keepdims=True)
        values = np.maximum(values, np.where(least > 0, least, 1.0))
        safe = (vectors * values[..., None, :]) @ vectors.swapaxes(-1, -2)
        root = np.linalg.cholesky((safe + safe.swapaxes(-1, -2)) / 2)
        return root.astype(np.float64, copy=False)


IDENTITY = Metric()
"""The plain Frobenius norm: what a fit without calibration inputs minimises."""
