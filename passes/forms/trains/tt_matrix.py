"""TTMatrix: a weight as a train over pairs of factors of its outputs and inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ....device_profiles.errors import RankError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Form, Shape, Term, better, squared_error
from ..metric import IDENTITY, Metric
from .tensor_train import check_choice, kept_ranks
from .tensor_train_half import rounded
from .tensor_train_svd import check_ranks, largest_ranks
from .tt_matrix_cores import compressed_train
from .tt_matrix_fit import Target, ranks_keeping, train
from .tt_matrix_modes import Modes, modes_of
from .tt_matrix_term import TTMatrixTerm, as_train, train_kernels

_DAMPING = 0.01


@dataclass(frozen=True)
class TTMatrix:
    """W as a train of cores over (K·K) × (O₁I₁) × … × (O_dI_d) (CEPD, section 4, eq. 9).

    The first core is there only where the kernel has more than one position. A fully
    connected layer is run core by core where that takes fewer multiply-adds than the dense
    product; a convolution is stored as a train and run dense.

    Args:
        ranks: one between every two cores: d for a convolution, d − 1 for a product; empty
            where `error` is given.
        error: relative error ‖W − Ŵ‖ / ‖W‖ in the metric of the fit, to be kept.
        d: number of factors of outputs and of inputs.
        outputs, inputs: the factors; balanced where they are not given.
        cores: form of each core.
    """

    ranks: tuple[int, ...] = ()
    error: float | None = None
    d: int = 2
    outputs: tuple[int, ...] = ()
    inputs: tuple[int, ...] = ()
    cores: Form | None = None
    name: ClassVar[str] = "tt_matrix"

    def __post_init__(self) -> None:
        check_choice(self.name, self.ranks, self.error)
        if not 2 <= self.d <= 8:
            raise RankError(f"tt_matrix: d={self.d} factors", hint="choose d from 2 to 8")
        for word, factors in (("outputs", self.outputs), ("inputs", self.inputs)):
            if factors and (len(factors) != self.d or min(factors) < 1):
                raise RankError(
                    f"tt_matrix: {word}={factors} are not d={self.d} factors",
                    hint=f"give {self.d} factors, or leave {word} out",
                )

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        modes = self.modes(W.shape)
        ranks = self.resolved(W, metric).ranks
        targets = _targets(W, modes, metric)
        trains = [
            train(target, ranks, None if metric.H is None else metric.H[at])
            for at, target in enumerate(targets)
        ]
        if self.cores is not None:
            term: Term = compressed_train(W, targets, trains, self.cores, metric)
        else:
            term = _rounded(W, trains, modes, metric)
        return better(W, term, start, metric)

    def modes(self, shape: Shape) -> Modes:
        """How a weight of `shape` is taken apart.

        Raises:
            RankError: the factors do not fit it.
        """
        return modes_of(shape, self.d, self.outputs, self.inputs)

    def resolved(self, W: Weights, metric: Metric = IDENTITY) -> "TTMatrix":
        """The same form with the ranks that keep its error for this weight."""
        modes = self.modes(W.shape)
        if self.error is None:
            check_ranks(self.ranks, modes.sizes)
            return self
        error, targets = self.error, _targets(W, modes, metric)
        most = largest_ranks(modes.sizes)
        limit = error**2 * metric.squared(W)

        def keeps(ranks: tuple[int, ...]) -> bool:
            possible = _possible(ranks, modes.sizes)
            trains = [
                train(target, possible, None if metric.H is None else metric.H[at])
                for at, target in enumerate(targets)
            ]
            return squared_error(W, _rounded(W, trains, modes, metric), metric) <= limit

        found = kept_ranks(ranks_keeping(targets, error), most, keeps)
        return replace(self, ranks=_possible(found, modes.sizes), error=None)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        """The products of the chain, or the dense layer that is run in its place.

        Where the ranks wait for the weight, the dense layer: the chain is run only if cheaper.
        """
        modes = self.modes(shape)
        ranks = self.ranks or largest_ranks(modes.sizes)
        check_ranks(ranks, modes.sizes)
        return train_kernels(shape, geometry, modes, ranks)


def _targets(W: Weights, modes: Modes, metric: Metric) -> list[Target]:
    flat = W.reshape(*W.shape[:3], -1).astype(np.float64)
    damped = metric.damped(_DAMPING).H
    return [
        Target(modes.tensor(group), modes, None if damped is None else damped[at])
        for at, group in enumerate(flat)
    ]


def _rounded(
    W: Weights, trains: Sequence[Sequence[np.ndarray]], modes: Modes, metric: Metric
) -> TTMatrixTerm:
    """The cores as a term, in 16 bits where that is not felt."""

    def term(cores: tuple[Weights, ...]) -> TTMatrixTerm:
        return TTMatrixTerm(cores, modes, W.shape)

    return term(rounded(as_train(trains), lambda cores: squared_error(W, term(cores), metric)))


def _possible(ranks: Sequence[int], sizes: Sequence[int]) -> tuple[int, ...]:
    """The ranks, none above what the sizes beside it and the rank before it allow."""
    found: list[int] = []
    for at, (r, limit) in enumerate(zip(ranks, largest_ranks(sizes), strict=True)):
        found.append(min(r, limit, (found[-1] if found else 1) * sizes[at]))
    return tuple(found)
