"""What sites save together is chosen together: as good as every combination."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.compiler.allocation.solve_table import Choices
from nncc.compiler.allocation.solve_tied import Pair, jointly


def drawn(rng, sites, budgets):
    """A chain of sites some of whose candidates save in the site before, or cost there."""
    table, pairs = [], []
    for i in range(sites):
        n = int(rng.integers(2, 6))
        costs = {q: np.append(4.0, rng.uniform(0.5, 4, n - 1)) for q in budgets}
        table.append(Choices(str(i), np.append(0.0, rng.uniform(0.1, 1, n - 1)), costs))
        if i and n > 2:
            at = np.arange(2, n)
            shape = (len(table[i - 1].value), len(at))
            saved = {q: rng.uniform(-0.3, 1.5, shape) for q in budgets}
            pairs.append(Pair(i - 1, i, at, saved))
    return table, pairs


def cost(table, pairs, choice, quantity):
    total = sum(float(e.costs[quantity][i]) for e, i in zip(table, choice, strict=True))
    for pair in pairs:
        at = np.flatnonzero(pair.candidates == choice[pair.reader])
        if len(at):
            total -= float(pair.saved[quantity][choice[pair.maker], at[0]])
    return total


@settings(deadline=None)  # HiGHS is loaded by the first
@given(st.integers(0, 2**32 - 1), st.sampled_from([("macs",), ("bits", "seconds")]))
def test_no_combination_is_better(seed, quantities):
    rng = np.random.default_rng(seed)
    table, pairs = drawn(rng, int(rng.integers(2, 5)), quantities)
    fixed = dict.fromkeys(quantities, 1.0)
    budgets = {q: 1.0 + len(table) * float(rng.uniform(1, 4)) for q in quantities}
    values = {
        choice: sum(float(e.value[i]) for e, i in zip(table, choice, strict=True))
        for choice in itertools.product(*(range(len(e.value)) for e in table))
        if all(1 + cost(table, pairs, choice, q) <= budgets[q] - 1e-6 for q in quantities)
    }

    found = jointly(table, pairs, budgets, fixed, nodes=10_000)

    if not values:
        assert found.choice is None
        return
    assert found.choice is not None
    value = sum(float(e.value[i]) for e, i in zip(table, found.choice, strict=True))
    assert value == pytest.approx(min(values.values()), abs=1e-5)
    assert found.bound <= value + 1e-5
    assert all(1 + cost(table, pairs, found.choice, q) <= budgets[q] for q in quantities)
