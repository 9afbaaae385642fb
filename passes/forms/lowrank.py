"""LowRank: W ≈ U V, two layers of rank j in place of one."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import scipy.linalg

from ...device_profiles.errors import RankError
from ...device_profiles.kernel import Kernel
from ..geometry import Geometry, Weights
from .form import Cost, Emitter, Shape, Term, better, read_only


def truncate(
    W: npt.NDArray[np.float32], j: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The best rank-j factors of W, balanced: argmin over U, V of ‖W − U V‖_F.

    Eckart-Young; the L term of the additive-combinations paper, eq. (4), and the local step of
    ALDS. The leading singular vectors of the shorter side are eigenvectors of its Gram matrix
    (float64); W is projected onto them, which is exact to second order in their error. √σ goes
    to each factor so that U and V quantize alike. Signs are fixed: the largest entry of each
    column of U is positive.

    Args:
        W: (m, n) weights.
        j: rank, 1 ≤ j ≤ min(m, n).

    Returns:
        U (m, j) and V (j, n).

    Raises:
        RankError: j is out of range.

    Example:
        >>> U, V = truncate(np.outer([1, 2], [3, 4, 5]).astype(np.float32), 1)
        >>> bool(np.allclose(U @ V, np.outer([1, 2], [3, 4, 5])))
        True
    """
    m, n = W.shape
    if not 1 <= j <= min(m, n):
        raise RankError(
            f"rank j={j} is outside 1 … min(m, n)={min(m, n)} of a ({m}, {n}) matrix",
            hint=f"choose j ≤ {min(m, n)}, or j ≤ {break_even(m, n)} to save storage",
        )
    if m > n:
        right, left = truncate(W.T, j)
        U, V = left.T, right.T
    else:
        # Projection makes the factors exact to second order in the error of the vectors, so
        # that float32 eigenvectors are enough where the matrix is large.
        precise = np.float64 if m <= 1024 else np.float32
        A = W.astype(precise)
        low, high = m - j, m - 1
        _, Q = scipy.linalg.eigh(  # pyright: ignore[reportUnknownMemberType]
            A @ A.T,
            subset_by_index=[low, high],
            driver="evr",
            overwrite_a=True,
            check_finite=False,
        )
        Q = np.ascontiguousarray(Q[:, ::-1])
        P = Q.T @ A
        root = np.sqrt(np.linalg.norm(P, axis=1))
        safe = np.where(root > 0, root, 1)
        U, V = Q * root, P / safe[:, None]
    sign = np.where(U[np.abs(U).argmax(axis=0), np.arange(j)] < 0, -1, 1).astype(np.float32)
    return read_only(U * sign), read_only(V * sign[:, None])


def break_even(m: int, n: int) -> int:
    """The largest rank with fewer weights than the dense matrix: j (m + n) < m n."""
    return max((m * n - 1) // (m + n), 0)


@dataclass(frozen=True, eq=False)
class LowRankTerm:
    """W ≈ U V per group.

    Args:
        U: (g, m, j).
        V: (g, j, c, *kernel).
    """

    U: Weights
    V: Weights

    @property
    def shape(self) -> Shape:
        return (self.U.shape[0], self.U.shape[1], *self.V.shape[2:])

    def decompress(self) -> Weights:
        g, j = self.V.shape[:2]
        return read_only((self.U @ self.V.reshape(g, j, -1)).reshape(self.shape))

    def cost(self) -> Cost:
        stored = self.U.size + self.V.size
        return Cost(stored, 32 * stored)

    def arrays(self) -> dict[str, Weights]:
        return {"u": self.U, "v": self.V}

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        h = emitter.apply(x, self.V, "v", geometry.first())
        return emitter.apply(h, output_factor(self.U, geometry), "u", geometry.second())


def output_factor(U: Weights, geometry: Geometry) -> Weights:
    """U (g, m · A, j) as the weights of the second layer, (g, m, j, *A)."""
    sizes = [geometry.kernel[a] for a in sorted(geometry.output_axes)]
    g, rows, j = U.shape
    m = rows // int(np.prod(sizes, dtype=int))
    return np.moveaxis(U.reshape(g, m, *sizes, j), -1, 2)


@dataclass(frozen=True)
class LowRank:
    """The best approximation of rank j, each group by itself.

    Args:
        j: rank.
    """

    j: int
    name: ClassVar[str] = "lowrank"

    def compress(self, W: Weights, start: Term | None = None) -> Term:
        g, m = W.shape[:2]
        pairs = [truncate(group.reshape(m, -1), self.j) for group in W]
        U = np.stack([u for u, _ in pairs])
        V = np.stack([v for _, v in pairs]).reshape(g, self.j, *W.shape[2:])
        return better(W, LowRankTerm(read_only(U), read_only(V)), start)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        check_rank(self.j, shape)
        g, _, c = shape[:3]
        m = shape[1] // int(
            np.prod([geometry.kernel[a] for a in geometry.output_axes], dtype=int)
        )
        return (
            geometry.first().as_kernel(self.j, c, g),
            geometry.second().as_kernel(m, self.j, g),
        )


def check_rank(j: int, shape: Shape) -> None:
    """Raises RankError where rank j does not fit a weight of `shape`."""
    m, n = shape[1], int(np.prod(shape[2:], dtype=int))
    if not 1 <= j <= min(m, n):
        raise RankError(
            f"rank j={j} is outside 1 … min(m, n)={min(m, n)} of a ({m}, {n}) matrix",
            hint=f"choose j ≤ {min(m, n)}, or j ≤ {break_even(m, n)} to save storage",
        )
