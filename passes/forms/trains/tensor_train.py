"""TensorTrain: a convolution as a train of three cores, inputs | kernel | outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ....device_profiles.errors import RankError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..factors.tucker import as_term, check_factors, factor_kernels
from ..factors.tucker_fit import channel_moments, leading, three_factors
from ..form import Form, Shape, Term, better, squared_error
from ..metric import IDENTITY, Metric
from .tensor_train_cores import compressed_cores
from .tensor_train_svd import Tensor, tail_energies

_GROWTH = 1.1
"""Ranks grow by this factor where those of the spectra do not keep the error asked for."""
_HALVINGS = 5


@dataclass(frozen=True)
class TensorTrain:
    """A 1×1, a κ×κ and a 1×1 convolution: cores (c, r₁), (r₁, κ, r₂) and (r₂, m).

    TT-SVD, then alternating least squares. With the kernel as the middle mode a train of three
    cores is the same set of weights as Tucker-2 at ranks (r₂, r₁), and is run in the same way.

    Args:
        ranks: (r₁, r₂); empty where `error` is given.
        error: relative error ‖W − Ŵ‖ / ‖W‖ in the metric of the fit, to be kept with few
            weights.
        cores: form of each core.
    """

    ranks: tuple[int, ...] = ()
    error: float | None = None
    cores: Form | None = None
    name: ClassVar[str] = "tt"

    def __post_init__(self) -> None:
        check_choice(self.name, self.ranks, self.error)
        if self.ranks and len(self.ranks) != 2:
            raise RankError(
                f"tt takes two ranks, inputs | kernel | outputs, found {len(self.ranks)}",
                hint="write ranks=(r1, r2)",
            )

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        form = self.resolved(W, metric)
        inputs, outputs = form.ranks
        if self.cores is not None:
            term: Term = compressed_cores(W, outputs, inputs, self.cores, metric)
        else:
            term = as_term(W, three_factors(W, outputs, inputs, metric), metric)
        return better(W, term, start, metric)

    def resolved(self, W: Weights, metric: Metric = IDENTITY) -> "TensorTrain":
        """The same form with the ranks that keep its error for this weight."""
        if self.error is None:
            check_factors(W.shape, self.ranks[1], self.ranks[0], self.name)
            return self
        check_factors(W.shape, 1, 1, self.name)
        return replace(self, ranks=ranks_by_error(W, self.error, metric), error=None)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        """The three convolutions; at their largest where the ranks wait for the weight."""
        inputs, outputs = self.ranks or (shape[2], shape[1])
        check_factors(shape, outputs, inputs, self.name)
        return factor_kernels(shape, geometry, outputs, inputs)


def check_choice(name: str, ranks: Sequence[int], error: float | None) -> None:
    """Raises RankError unless either ranks or an error are given, and in range."""
    if bool(ranks) == (error is not None):
        raise RankError(
            f"{name} takes either ranks or a relative error",
            hint=f"write {name}(ranks=(8, 8)) or {name}(error=0.1)",
        )
    if error is not None and not 0 <= error < 1:
        raise RankError(
            f"{name}: error={error} is no relative error", hint="choose 0 ≤ error < 1"
        )
    if any(r < 1 for r in ranks):
        raise RankError(f"{name}: ranks {tuple(ranks)} are not all at least 1")


def ranks_by_error(W: Weights, error: float, metric: Metric = IDENTITY) -> tuple[int, ...]:
    """(r₁, r₂) with few weights whose fit keeps ‖W − Ŵ‖ ≤ error · ‖W‖ in the metric.

    The error of a truncation is at most the sum of what both unfoldings lose (De Lathauwer,
    De Moor and Vandewalle, 2000, property 10); of the pairs that keep it the one with the
    fewest weights is taken, r₂ lowered to what the projected weight needs, and both scaled
    to what the fit itself needs.

    Args:
        W: (g, m, c, *kernel).
        error: relative.
        metric: the norm.
    """
    g, m, c = W.shape[:3]
    flat = W.reshape(g, m, c, -1).astype(np.float64)
    seen = flat if metric.H is None else _seen(flat, metric)
    size = flat.shape[3]
    budget = error**2 * float(np.vdot(seen, seen)) * (1 - 1e-9)
    into = [np.tensordot(A, A, axes=((0, 2), (0, 2))) for A in seen]
    lost_in = tail_energies(_energies(into))
    lost_out = tail_energies(_energies([_out(A) for A in seen]))

    def fewest(r1: int, lost: Tensor) -> int:
        return max(int(np.argmax(lost <= budget - lost_in[r1])), 1)

    def weights(r1: int) -> int:
        r2 = fewest(r1, lost_out)
        return r1 * c + r1 * size * r2 + r2 * m

    r1 = min((r for r in range(1, c + 1) if lost_in[r] <= budget or r == c), key=weights)
    kept = [
        np.tensordot(A, leading(gram, r1), axes=(1, 0))
        for A, gram in zip(seen, into, strict=True)
    ]
    r2 = fewest(r1, tail_energies(_energies([_out(A) for A in kept])))
    return kept_ranks((r1, r2), (c, m), lambda ranks: _keeps(W, ranks, error, metric))


def kept_ranks(
    ranks: tuple[int, ...], most: tuple[int, ...], keeps: Callable[[tuple[int, ...]], bool]
) -> tuple[int, ...]:
    """The ranks raised in proportion until a fit keeps what it must, then lowered to it.

    Args:
        ranks: a guess.
        most: ranks that keep everything; they are not tried.
        keeps: whether a fit at these ranks is close enough.
    """

    def scaled(by: float) -> tuple[int, ...]:
        wanted = [max(round(by * r), 1) for r in ranks]
        return tuple(min(pair) for pair in zip(wanted, most, strict=True))

    high = 1.0
    while scaled(high) != most and not keeps(scaled(high)):
        high *= _GROWTH
    low = 0.0 if high == 1.0 else high / _GROWTH
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if scaled(middle) in (scaled(low), scaled(high)):
            break
        low, high = (low, middle) if keeps(scaled(middle)) else (middle, high)
    return scaled(high)


def _keeps(W: Weights, ranks: tuple[int, ...], error: float, metric: Metric) -> bool:
    term = as_term(W, three_factors(W, ranks[1], ranks[0], metric), metric)
    limit = error**2 * metric.squared(W)
    return squared_error(W, term, metric) <= limit


def _seen(flat: Tensor, metric: Metric) -> Tensor:
    """The weight in the metric of its input channels alone."""
    assert metric.H is not None, "the identity sees the weight as it is"
    c = flat.shape[2]
    moments = np.stack([channel_moments(H, c) for H in metric.H])
    roots, _ = Metric(moments).roots()
    return np.einsum("gmck,gcd->gmdk", flat, roots, optimize=True)


def _out(A: Tensor) -> Tensor:
    rows = A.reshape(len(A), -1)
    return rows @ rows.T


def _energies(grams: Sequence[Tensor]) -> Tensor:
    """Squared singular values, largest first, added up over the groups."""
    return np.sum([np.linalg.eigvalsh(gram)[::-1] for gram in grams], axis=0)
