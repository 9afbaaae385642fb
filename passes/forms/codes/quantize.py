"""Quantize: every weight one of K levels that are fitted to the weights."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ....device_profiles.errors import PlanError
from ....device_profiles.kernel import Kernel
from ...geometry import Geometry, Weights
from ..form import Shape, Term
from ..metric import IDENTITY, Metric
from .feedback_fit import coded
from .kmeans import kmeans, kmeans_rows
from .quantize_levels import Levels
from .quantize_scaled import scaled_levels
from .quantize_term import dense_kernel

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Quantize:
    """An adaptive codebook of k levels (LC part V, section 3: the Q term).

    The plain fit is k-means in one dimension, solved exactly. In a layer's metric, error
    feedback and least squares follow.

    Args:
        k: levels, 2 … 256.
        per: what has a codebook of its own: "layer", "channel" (an output's row) or "group"
            (`group` consecutive weights of a row).
        group: weights in a group; a row's last one may be smaller.
        scale: what multiplies the one codebook of a layer by a float16 number of its own:
            "none", "row" (an output's row) or "group".

    Raises:
        PlanError: the fields contradict each other.
    """

    k: int
    per: str = "layer"
    group: int = 0
    scale: str = "none"
    name: ClassVar[str] = "quantize"

    def __post_init__(self) -> None:
        check_levels(self.name, self.k)
        check_sharing(self.name, "per", self.per, ("layer", "channel", "group"))
        check_sharing(self.name, "scale", self.scale, ("none", "row", "group"))
        check_group(self.name, self.group, "group" in (self.per, self.scale))
        if self.scale != "none" and self.per != "layer":
            raise PlanError(
                f"form 'quantize' has scale={self.scale} beside per={self.per}",
                hint="scales multiply the codebook of a layer: choose per=layer or scale=none",
            )

    def compress(
        self, W: Weights, start: Term | None = None, metric: Metric = IDENTITY
    ) -> Term:
        return coded(W, self.levels, start, metric)

    def kernels(self, shape: Shape, geometry: Geometry) -> tuple[Kernel, ...]:
        return dense_kernel(shape, geometry)

    def levels(self, W: Weights, weights: Floats | None) -> Levels:
        """The best levels for W (R, n) in a diagonal metric (R, n), or in the plain norm."""
        n = W.shape[1]
        block = min(self.group, n) if self.group else n
        if self.scale != "none":
            return scaled_levels(W, self.k, block, weights)
        if self.per == "layer":
            book = kmeans(W, self.k, weights).centres[None, None]
        elif self.per == "channel":
            book = kmeans_rows(W, self.k, weights)[:, None]
        else:
            h = np.ones(W.shape, np.float32) if weights is None else weights
            parts, held = blocked(W, block), blocked(h, block)
            rows = parts.reshape(-1, block), held.reshape(-1, block)
            book = kmeans_rows(rows[0], self.k, rows[1]).reshape(len(W), -1, self.k)
        return Levels(book.astype(np.float32), None, None, block, self.k)


def blocked(a: Floats, block: int) -> Floats:
    """(R, n) as (R, blocks, block), filled up with zeros."""
    rows, n = a.shape
    padded = np.pad(a, ((0, 0), (0, -n % block)))
    return padded.reshape(rows, -1, block)


def check_levels(form: str, k: int) -> None:
    """Raises PlanError where codes of k levels do not fit a byte."""
    if not 2 <= k <= 256:
        raise PlanError(f"form {form!r} has {k} levels", hint="choose 2 … 256")


def check_sharing(form: str, field: str, value: str, words: tuple[str, ...]) -> None:
    """Raises PlanError where `value` is not one of `words`."""
    if value not in words:
        raise PlanError(
            f"form {form!r} has {field}={value}", hint=f"choose {', '.join(words)}"
        )


def check_group(form: str, group: int, is_wanted: bool) -> None:
    """Raises PlanError where a group size is missing or out of place."""
    if is_wanted and group < 1:
        raise PlanError(
            f"form {form!r} works by groups of group={group} weights", hint="choose group ≥ 1"
        )
    if not is_wanted and group:
        raise PlanError(
            f"form {form!r} has group={group}, but nothing is per group",
            hint="leave group out, or share by group",
        )
