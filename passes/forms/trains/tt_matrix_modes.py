"""Modes: a weight as the tensor (K·K) × (O₁I₁) × … × (O_dI_d), and the price of its train."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....device_profiles.errors import RankError
from ..form import Shape
from .tensor_train_svd import Tensor, balanced


@dataclass(frozen=True)
class Modes:
    """How outputs and inputs are taken apart (CEPD, section 4, before eq. 9).

    Args:
        outputs: O₁ … O_d, whose product are the outputs of a group.
        inputs: I₁ … I_d, whose product are the inputs of a group.
        kernel: number of kernel positions; 1 has no mode of its own.
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    kernel: int = 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the tensor: κ where it is more than 1, then every O_k · I_k."""
        pairs = tuple(o * i for o, i in zip(self.outputs, self.inputs, strict=True))
        return pairs if self.kernel == 1 else (self.kernel, *pairs)

    def tensor(self, W: Tensor) -> Tensor:
        """A group's weight (m, c, κ) as the tensor."""
        d = len(self.outputs)
        apart = W.reshape(*self.outputs, *self.inputs, self.kernel)
        order = [2 * d, *(axis for k in range(d) for axis in (k, d + k))]
        return np.ascontiguousarray(apart.transpose(order).reshape(self.sizes))

    def weight(self, tensor: Tensor) -> Tensor:
        """The inverse of `tensor`: (m, c, κ)."""
        apart = tensor.reshape(self.split_sizes)
        m, c = math.prod(self.outputs), math.prod(self.inputs)
        return apart.transpose(self.together).reshape(m, c, self.kernel)

    @property
    def split_sizes(self) -> tuple[int, ...]:
        """(κ, O₁, I₁, …, O_d, I_d)."""
        pairs = zip(self.outputs, self.inputs, strict=True)
        return (self.kernel, *(size for pair in pairs for size in pair))

    @property
    def together(self) -> tuple[int, ...]:
        """The order of `split_sizes` that gives (O₁ … O_d, I₁ … I_d, κ)."""
        d = len(self.outputs)
        return (*range(1, 2 * d, 2), *range(2, 2 * d + 1, 2), 0)

    def steps(self, ranks: Sequence[int]) -> list[tuple[int, int, int]]:
        """The products of the chain x C_d … C₁: how often, outputs, inputs of each.

        Args:
            ranks: of the whole train, as the form takes them.
        """
        d = len(self.outputs)
        inner = (1, *ranks, 1) if self.kernel == 1 else (*ranks, 1)
        found: list[tuple[int, int, int]] = []
        done, rest = 1, math.prod(self.inputs)
        for k in range(d - 1, -1, -1):
            rest //= self.inputs[k]
            found.append(
                (done * rest, self.outputs[k] * inner[k], self.inputs[k] * inner[k + 1])
            )
            done *= self.outputs[k]
        return found

    def macs(self, ranks: Sequence[int]) -> int:
        """Multiply-adds of one application at one position, the cheaper of chain and dense.

        The chain of a kernel ends with one κ-point sum of r₀ maps for every output.
        """
        chain = sum(math.prod(step) for step in self.steps(ranks))
        m, c = math.prod(self.outputs), math.prod(self.inputs)
        if self.kernel > 1:
            chain += m * ranks[0] * self.kernel
        return min(chain, m * c * self.kernel)

    def runs_as_chain(self, ranks: Sequence[int]) -> bool:
        """Whether the chain takes fewer multiply-adds than the dense product."""
        dense = math.prod(self.outputs) * math.prod(self.inputs)
        return self.kernel == 1 and self.macs(ranks) < dense


def modes_of(
    shape: Shape, d: int, outputs: Sequence[int] = (), inputs: Sequence[int] = ()
) -> Modes:
    """The modes of a weight of `shape`: as given, or balanced factors.

    Outputs are taken with their largest factor last, inputs with their largest first, so that
    the products O_k · I_k are alike.

    Raises:
        RankError: factors that do not multiply to the sizes of the weight.

    Example:
        >>> modes_of((1, 64, 32, 3, 3), 2)
        Modes(outputs=(8, 8), inputs=(8, 4), kernel=9)
    """
    m, c = shape[1], shape[2]
    chosen_out = tuple(outputs) or balanced(m, d)
    chosen_in = tuple(inputs) or balanced(c, d)[::-1]
    for word, size, factors in (("outputs", m, chosen_out), ("inputs", c, chosen_in)):
        if len(factors) != d or math.prod(factors) != size:
            raise RankError(
                f"{word} {factors} are not {d} factors of {size}",
                hint=f"leave them out, or write {word}={balanced(size, d)}",
            )
    return Modes(chosen_out, chosen_in, math.prod(shape[3:]))


def partial_moments(H: Tensor, modes: Modes) -> list[Tensor]:
    """The moments of one input mode alone, for every mode of the tensor, scaled to mean 1.

    Args:
        H: (n, n), n = I₁ ⋯ I_d · κ.
        modes: of the weight.
    """
    sizes = (*modes.inputs, modes.kernel)
    whole = H.reshape(*sizes, *sizes)
    count = len(sizes)
    found: list[Tensor] = []
    for at in range(count):
        rows = "".join(chr(97 + k) for k in range(count))
        columns = rows.replace(rows[at], "z")
        part: Tensor = np.einsum(f"{rows}{columns}->{rows[at]}z", whole)
        found.append(part * (sizes[at] / max(float(np.trace(part)), np.finfo(float).tiny)))
    return ([found[-1]] if modes.kernel > 1 else []) + found[:-1]
