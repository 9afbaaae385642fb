"""Cores that are forms themselves: three factors, each compressed by one form, refitted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..factors.tucker import Tucker2Term, unfolded
from ..factors.tucker_fit import (
    Factors,
    Tensor,
    channel_moments,
    inner_moments,
    inputs_given_rest,
    outputs_given_inputs,
    solved,
    three_factors,
)
from ..form import Cost, Emitter, Form, Shape, Term, squared_error
from ..metric import IDENTITY, Metric
from ..prefixed import Prefixed
from .tensor_train_half import decoded

_SWEEPS = 4
"""Rounds of refitting each core to what the others have become."""
_DAMPING = 0.01


@dataclass(frozen=True, eq=False)
class TrainOfTermsTerm:
    """W[:, :, x] ≈ P G[:, :, x] Q per group, P, G and Q terms.

    Args:
        P: of (g, m, a).
        G: of (g, a, b, *kernel).
        Q: of (g, b, c).
    """

    P: Term
    G: Term
    Q: Term

    @property
    def factors(self) -> Tucker2Term:
        """The same weight, its factors multiplied out."""
        return Tucker2Term(self.P.decompress(), self.G.decompress(), self.Q.decompress())

    @property
    def shape(self) -> Shape:
        return (*self.P.shape[:2], self.Q.shape[2], *self.G.shape[3:])

    def decompress(self) -> Weights:
        return self.factors.decompress()

    def cost(self) -> Cost:
        return total([part.cost() for part in (self.P, self.G, self.Q)])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        return named_arrays({"p": self.P, "g": self.G, "q": self.Q})

    def kernels(self, geometry: Geometry) -> tuple[Kernel, ...]:
        """What a device is asked to run."""
        return self.factors.kernels(geometry)

    def lower(self, emitter: Emitter, x: ir.Value, geometry: Geometry) -> ir.Value:
        return self.factors.chain(emitter, x, geometry, (self.P, self.G, self.Q))

    def decode(self, emitter: Emitter) -> ir.Value | None:
        P, G, Q = (
            decoded_term(emitter, part, name)
            for name, part in (("p", self.P), ("g", self.G), ("q", self.Q))
        )
        return unfolded(emitter, P, G, Q, self.shape, self.G.shape[1], self.G.shape[2])


def decoded_term(emitter: Emitter, term: Term, part: str) -> ir.Value:
    """A core as a float32 value of the graph, in row order of its shape."""
    value = term.decode(Prefixed(emitter, part))
    return decoded(emitter, term.decompress(), part) if value is None else value


def total(costs: Sequence[Cost]) -> Cost:
    """The sum of costs."""
    return Cost(
        sum(c.weights for c in costs),
        sum(c.bits for c in costs),
        sum(c.adds for c in costs),
        sum(c.mults for c in costs),
    )


def named_arrays(parts: dict[str, Term]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of all parts, each under the name of its part."""
    return {
        f"{part}.{name}": array
        for part, term in parts.items()
        for name, array in term.arrays().items()
    }


def compressed_cores(
    W: Weights, a: int, b: int, of: Form, metric: Metric = IDENTITY
) -> TrainOfTermsTerm:
    """Three factors fitted one after another, each to what those before it have become.

    The float fit is turned so that Q carries the scale, Q is compressed, P and G take their
    optimum for it; then G and P, each in the metric of what it reads, in which its error is
    the error of the weight. That, or the factors compressed each by itself where it is closer,
    is swept over: each is refitted to the others; a step that does not help is taken back.

    Args:
        W: (g, m, c, *kernel).
        a: rank over the outputs.
        b: rank over the inputs.
        of: form of every factor.
        metric: the norm.
    """
    kernel = W.shape[3:]
    flat = W.reshape(*W.shape[:3], -1).astype(np.float64)
    damped = metric.damped(_DAMPING).H
    H = [None] * len(flat) if damped is None else list(damped)
    work = _Problem(W, flat, H, metric, of)

    floats = three_factors(W, a, b, metric)
    centred = [_centred_on_inputs(f) for f in floats]
    Q = work.fit([f.Q for f in centred], (), [work.channels(i) for i in range(len(flat))])
    pairs = [
        outputs_given_inputs(group, inner, a, moments)
        for group, inner, moments in zip(flat, _wide(Q), H, strict=True)
    ]
    given = [
        inner_moments(group, inner, moments)
        for group, inner, moments in zip(flat, _wide(Q), H, strict=True)
    ]
    G = work.fit([G for _, G in pairs], kernel, [S for S, _ in given])
    P = work.fit_outputs(given, G)
    best = work.closer(
        TrainOfTermsTerm(P, G, Q),
        TrainOfTermsTerm(
            *(
                work.fit([factors[at] for factors in floats], kernel if at == 1 else ())
                for at in range(3)
            )
        ),
    )
    for _ in range(_SWEEPS):
        before = best
        for step in (work.inputs, work.middle, work.outputs):
            best = step(best)
        if best is before:
            break
    return best


@dataclass(frozen=True)
class _Problem:
    """What is fitted: the weight, per group in float64, its moments, the form of a core."""

    W: Weights
    flat: Tensor
    H: Sequence[Tensor | None]
    metric: Metric
    of: Form

    def fit(
        self,
        targets: Sequence[Tensor],
        kernel: tuple[int, ...],
        moments: Sequence[Tensor | None] = (None,),
        start: Term | None = None,
    ) -> Term:
        wide = np.stack(targets).astype(np.float32)
        known = [H for H in moments if H is not None]
        metric = Metric(np.stack(known)) if len(known) == len(moments) else IDENTITY
        return self.of.compress(
            wide.reshape(*wide.shape[:3], *kernel) if kernel else wide, start, metric
        )

    def channels(self, group: int) -> Tensor | None:
        H = self.H[group]
        return None if H is None else channel_moments(H, self.flat.shape[2])

    def fit_outputs(
        self, given: Sequence[tuple[Tensor, Tensor]], G: Term, start: Term | None = None
    ) -> Term:
        targets: list[Tensor] = []
        moments: list[Tensor] = []
        for (S, R), core in zip(given, _wide(G), strict=True):
            rows = core.reshape(len(core), -1)
            N = rows @ S @ rows.T
            targets.append(solved(N, R @ rows.T))
            moments.append((N + N.T) / 2)
        return self.fit(targets, (), moments, start)

    def given(self, Q: Term) -> list[tuple[Tensor, Tensor]]:
        return [
            inner_moments(group, inner, moments)
            for group, inner, moments in zip(self.flat, _wide(Q), self.H, strict=True)
        ]

    def inputs(self, term: TrainOfTermsTerm) -> TrainOfTermsTerm:
        """Q refitted."""
        targets: list[Tensor] = []
        for group, H, P, G, Q in zip(
            self.flat, self.H, _wide(term.P), _wide(term.G), _wide(term.Q), strict=True
        ):
            taps = G.reshape(*G.shape[:2], -1)
            moments = np.eye(group[0].size) if H is None else H
            targets.append(
                inputs_given_rest(group, Factors(P, taps, Q), moments, turns=False).Q
            )
        moments = [self.channels(i) for i in range(len(self.flat))]
        return self.closer(replace(term, Q=self.fit(targets, (), moments)), term)

    def middle(self, term: TrainOfTermsTerm) -> TrainOfTermsTerm:
        """G refitted."""
        given = self.given(term.Q)
        targets = [
            solved(P.T @ P, solved(S, R).T @ P).T
            for (S, R), P in zip(given, _wide(term.P), strict=True)
        ]
        shaped = [t.reshape(len(t), term.G.shape[2], -1) for t in targets]
        moments = [S for S, _ in given]
        kernel = self.W.shape[3:]
        return self.closer(replace(term, G=self.fit(shaped, kernel, moments, term.G)), term)

    def outputs(self, term: TrainOfTermsTerm) -> TrainOfTermsTerm:
        """P refitted."""
        given = self.given(term.Q)
        return self.closer(replace(term, P=self.fit_outputs(given, term.G, term.P)), term)

    def closer(self, new: TrainOfTermsTerm, old: TrainOfTermsTerm) -> TrainOfTermsTerm:
        """The new one where it is closer to the weight."""
        errors = [squared_error(self.W, term, self.metric) for term in (new, old)]
        return new if errors[0] < errors[1] else old


def _wide(term: Term) -> list[Tensor]:
    return list(term.decompress().astype(np.float64))


def _centred_on_inputs(factors: Factors) -> Factors:
    """The same weight with Q carrying the scale: ‖ΔQ‖ is then the error of the weight."""
    P, G, Q = factors
    b = len(Q)
    slices = G.swapaxes(0, 1).reshape(b, -1)
    if slices.shape[1] < b:
        return factors
    U, sigma, Vt = np.linalg.svd(slices, full_matrices=False)
    turned = (U @ Vt).reshape(b, len(G), -1).swapaxes(0, 1)
    return Factors(P, np.ascontiguousarray(turned), (U * sigma) @ U.T @ Q)
