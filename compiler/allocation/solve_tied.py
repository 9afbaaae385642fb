"""Tied sites: the least sum where what a choice saves depends on the choice of another site.

A saving s(a, b) of candidates a and b of two sites is felt where both choices x(a), x(b) are
made. With y(a, b) in the place of their product, Σ over a of y(a, b) = x(b) and Σ over b of
y(a, b) ≤ x(a), the problem is linear and its relaxation tight (Adams and Sherali 1986, "A
tight linearization and an algorithm for zero-one quadratic programming problems").
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .solve_pareto import pareto
from .solve_table import Choices, Matrix

Places = npt.NDArray[np.int_]

NODES = 200
"""Branch-and-bound nodes at most. Nodes, not seconds: the same plan on every machine."""
MOST_PAIRS = 20_000
"""Pairs of candidates beyond which nothing is tried: the relaxation alone takes long."""
_SIZE = 1e2
"""Size of right-hand sides and of the objective: HiGHS holds both to 1e-6."""
_MARGIN = 1e-6
"""Left of a budget of size `_SIZE`: HiGHS may exceed it by as much."""


@dataclass(frozen=True)
class Pair:
    """Two sites of a table, and what their candidates save together.

    Args:
        maker, reader: numbers of the sites.
        candidates: those of the reader that save anything.
        saved: by quantity, (candidates of the maker, those of the reader).
    """

    maker: int
    reader: int
    candidates: Places
    saved: Mapping[str, Matrix]

    @property
    def size(self) -> int:
        """How many pairs of candidates."""
        return next(iter(self.saved.values())).size


@dataclass(frozen=True)
class Joint:
    """What was found.

    Args:
        choice: a candidate of every site, within the budgets but for rounding; None where none
            was found.
        bound: no choice within the budgets has a smaller sum.
    """

    choice: tuple[int, ...] | None
    bound: float


def jointly(
    table: Sequence[Choices],
    pairs: Sequence[Pair],
    budgets: Mapping[str, float],
    fixed: Mapping[str, float],
    nodes: int = NODES,
) -> Joint:
    """argmin of Σ value, with Σ cost − Σ saved + fixed ≤ each budget.

    Args:
        table: candidates of every site, at what each costs by itself.
        pairs: what some save together.
        budgets: quantity to the upper bound of its total.
        fixed: quantity to what everything outside the table takes.
        nodes: of branch and bound, at most.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    if sum(pair.size for pair in pairs) > MOST_PAIRS:
        return Joint(None, -np.inf)
    names = list(budgets)
    kept = _undominated(table, pairs, names)
    table = [
        Choices(e.site, e.value[at], {name: e.costs[name][at] for name in names})
        for e, at in zip(table, kept, strict=True)
    ]
    starts = np.concatenate([[0], np.cumsum([len(entry.value) for entry in table])])
    values = [np.array(entry.value) for entry in table]
    costs = [np.stack([entry.costs[name] for name in names]) for entry in table]
    parts: list[Places] = [np.arange(a, b) for a, b in itertools.pairwise(starts.tolist())]
    rows = [_Row(part, 1.0, 1.0) for part in parts]
    first = int(starts[-1])
    for pair in pairs:
        saved = np.stack([pair.saved[name][kept[pair.maker]] for name in names])
        y: Places = np.arange(first, first + int(saved[0].size)).reshape(saved.shape[1:])
        first += int(y.size)
        values.append(np.zeros(y.size))
        costs.append(-saved.reshape(len(names), -1))
        made = starts[pair.maker] + np.arange(len(y))
        read = starts[pair.reader] + np.searchsorted(kept[pair.reader], pair.candidates)
        rows += [_Row(each, 0.0, 0.0, int(x)) for each, x in zip(y.T, read, strict=True)]
        rows += [_Row(each, -1.0, 0.0, int(x)) for each, x in zip(y, made, strict=True)]
    value, cost = np.concatenate(values), np.concatenate(costs, axis=1)
    unit = float(np.abs(value).sum()) / _SIZE or 1.0
    most = np.array([budgets[name] - fixed.get(name, 0.0) for name in names])
    size = np.maximum(np.maximum(np.abs(most), 1e-6 * np.abs(cost).max(axis=1)), 1e-30)
    held = LinearConstraint(
        cost / size[:, None] * _SIZE, -np.inf, most / size * _SIZE - _MARGIN
    )
    at = np.concatenate([np.full(len(row.columns), i) for i, row in enumerate(rows)])
    columns = np.concatenate([row.columns for row in rows])
    ones = np.concatenate([row.ones for row in rows])
    matrix = csr_array((ones, (at, columns)), shape=(len(rows), len(value)))
    linked = LinearConstraint(matrix, [row.low for row in rows], [row.high for row in rows])
    result = milp(
        value / unit,
        integrality=(np.arange(len(value)) < starts[-1]).astype(np.intp),
        bounds=Bounds(0, 1),
        constraints=[linked, held],
        options={"node_limit": nodes, "mip_rel_gap": 0.0, "presolve": False},
    )
    dual = getattr(result, "mip_dual_bound", None)
    bound = -np.inf if dual is None else float(dual) * unit
    if result.x is None:
        return Joint(None, bound)
    x = np.asarray(result.x)
    taken = [int(at[np.argmax(x[part])]) for at, part in zip(kept, parts, strict=True)]
    return Joint(tuple(taken), bound)


def _undominated(
    table: Sequence[Choices], pairs: Sequence[Pair], names: Sequence[str]
) -> list[Places]:
    """Of every site the candidates that no other beats in value, every cost and every saving.

    Those that save in another site stay in any case.
    """
    kept: list[Places] = []
    for i, entry in enumerate(table):
        columns = [entry.value, *(entry.costs[name] for name in names)]
        for pair in pairs:
            if pair.maker == i:
                columns += [-saved for name in names for saved in pair.saved[name].T]
        tied = [pair.candidates for pair in pairs if pair.reader == i]
        apart: Places = np.unique(np.concatenate([np.zeros(0, np.int_), *tied]))
        alone: Places = np.setdiff1d(np.arange(len(entry.value)), apart)
        front: Places = alone[pareto(np.column_stack(columns)[alone])]
        both: Places = np.union1d(front, apart)
        kept.append(both)
    return kept


class _Row:
    """low ≤ Σ of some variables, less the one named by `less`, ≤ high."""

    def __init__(self, of: Places, low: float, high: float, less: int | None = None) -> None:
        self.low, self.high = low, high
        self.columns = of if less is None else np.append(of, less)
        self.ones = np.ones(len(self.columns))
        if less is not None:
            self.ones[-1] = -1.0
