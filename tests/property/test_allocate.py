"""The solvers against all combinations, on small random tables."""

import math
import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nncc.compiler.allocation.allocate import (
    Candidates,
    minimise_maximum,
    minimise_sum,
    within,
)
from nncc.compiler.options import CompileOptions
from nncc.device_profiles.errors import BudgetInfeasible

UNUSED = 0.005
"""Share of a budget that may stay unused where something still fits."""

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def tables(draw):
    """Up to four sites, up to five candidates each; small whole numbers, so ties abound."""
    table = []
    for index in range(draw(st.integers(1, 4))):
        count = draw(st.integers(0, 4))

        def numbers(high, count=count, low=0):
            return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

        table.append(
            Candidates(
                f"site{index}",
                np.array([0, *numbers(8)]) / 8.0,
                np.array([draw(st.integers(1, 40)), *numbers(40, low=1)], dtype=float),
                np.array([0, *numbers(20)], dtype=float),
                np.array([draw(st.integers(0, 20)), *numbers(20)]) / 16.0,
            )
        )
    return table


def combinations(table):
    """(largest error, cost, sum of squares) of every choice."""
    for choice in product(*(range(len(site.cost)) for site in table)):
        yield totals(table, choice)


def totals(table, choice):
    pairs = list(zip(table, choice, strict=True))
    return (
        max(float(site.error[i]) for site, i in pairs),
        sum(int(site.cost[i]) for site, i in pairs),
        sum(int(site.squared[i]) for site, i in pairs),
    )


def single_moves(table, choice, left, bound):
    """Moves of one site that lower its squared error, keep the bound and fit what is left."""
    return [
        (site.site, target)
        for site, now in zip(table, choice, strict=True)
        for target in range(len(site.cost))
        if site.error[target] <= bound
        and site.squared[target] < site.squared[now]
        and site.cost[target] - site.cost[now] <= left
    ]


def scaled(table, factor):
    return [
        Candidates(site.site, site.error, site.cost * factor, site.squared, site.price)
        for site in table
    ]


def feasible(table, budget, fixed=0):
    least = fixed + sum(int(site.cost.min()) for site in table)
    assume(least <= budget)


@quick
@given(table=tables(), budget=st.integers(1, 170), fixed=st.integers(0, 9))
def test_no_combination_within_the_budget_has_a_smaller_maximum(table, budget, fixed):
    feasible(table, budget, fixed)
    found = minimise_maximum(table, budget, fixed=fixed)
    best = min(e for e, cost, _ in combinations(table) if cost + fixed <= budget)
    error, cost, _ = totals(table, found.choice)
    assert found.bound == best
    assert error <= best
    assert found.cost == cost + fixed <= budget


@quick
@given(table=tables(), budget=st.integers(1, 170))
def test_what_stays_unused_buys_no_single_move(table, budget):
    feasible(table, budget)
    largest, least = minimise_maximum(table, budget), minimise_sum(table, budget)
    for found, bound in ((largest, largest.bound), (least, math.inf)):
        left = budget - found.cost
        assert left <= UNUSED * budget or not single_moves(table, found.choice, left, bound)


@quick
@given(table=tables(), low=st.integers(1, 170), more=st.integers(0, 50))
def test_a_larger_budget_never_has_a_larger_maximum(table, low, more):
    feasible(table, low)
    assert minimise_maximum(table, low + more).bound <= minimise_maximum(table, low).bound


@quick
@given(table=tables(), budget=st.integers(1, 170), fixed=st.integers(0, 9))
def test_the_sum_is_at_most_that_of_the_best_multiplier_within_the_budget(
    table, budget, fixed
):
    feasible(table, budget, fixed)
    found = minimise_sum(table, budget, fixed=fixed)
    _, cost, squared = totals(table, found.choice)
    assert found.cost == cost + fixed <= budget
    points = {(c, s) for _, c, s in combinations(table)}
    corner = max(point for point in lower_hull(points) if point[0] + fixed <= budget)
    assert squared <= corner[1]
    if cost == corner[0]:
        assert squared == min(s for c, s in points if c <= cost)


def lower_hull(points):
    """Corners of the convex front, cost rising and squares falling: what multipliers reach.

    The cheapest point is always one; points inside an edge are none.
    """
    corners: list[tuple[int, int]] = []
    for cost, squared in sorted(points):
        if corners and squared >= corners[-1][1]:
            continue
        while len(corners) > 1 and not _is_convex(corners[-2], corners[-1], (cost, squared)):
            corners.pop()
        corners.append((cost, squared))
    return corners


def _is_convex(a, b, c):
    """Whether the fall per cost is strictly steeper from a to b than from b to c."""
    return Fraction(a[1] - b[1], b[0] - a[0]) > Fraction(b[1] - c[1], c[0] - b[0])


@quick
@given(table=tables(), budget=st.integers(1, 170), halvings=st.integers(1, 30))
def test_the_unit_of_cost_changes_nothing_in_the_maximum(table, budget, halvings):
    feasible(table, budget)
    unit = 0.5**halvings  # exact in binary, so that only the unit differs
    assert (
        minimise_maximum(scaled(table, unit), budget * unit).choice
        == minimise_maximum(table, budget).choice
    )


@quick
@given(table=tables(), budget=st.integers(1, 170), halvings=st.integers(1, 30))
def test_the_unit_of_cost_changes_nothing_in_the_sum(table, budget, halvings):
    feasible(table, budget)
    unit = 0.5**halvings
    assert (
        minimise_sum(scaled(table, unit), budget * unit).choice
        == minimise_sum(table, budget).choice
    )


@quick
@given(table=tables(), budget=st.integers(1, 170))
def test_the_same_table_gives_the_same_choice(table, budget):
    feasible(table, budget)
    for solve in (minimise_maximum, minimise_sum):
        assert solve(table, budget) == solve(list(table), float(budget))


@quick
@given(table=tables(), eighths=st.integers(0, 8))
def test_a_promised_error_is_kept_at_the_least_cost(table, eighths):
    threshold = eighths / 8
    found = within(table, threshold)
    error, cost, _ = totals(table, found.choice)
    assert error <= threshold
    assert found.cost == cost == min(c for e, c, _ in combinations(table) if e <= threshold)


@pytest.mark.parametrize("solve", [minimise_maximum, minimise_sum])
@quick
@given(table=tables(), missing=st.floats(0.01, 0.99), fixed=st.integers(0, 9))
def test_the_hint_of_an_infeasible_budget_leads_to_a_feasible_one(
    solve, table, missing, fixed
):
    dense = fixed + sum(site.dense for site in table)
    least = fixed + sum(float(site.cost.min()) for site in table)
    with pytest.raises(BudgetInfeasible) as caught:
        solve(table, least * missing, fixed=fixed)
    share = float(re.fullmatch(r"ask for at least ([\d.]+)", caught.value.hint)[1])
    asked = CompileOptions(macs=share).macs
    assert solve(table, asked * dense, fixed=fixed).cost <= asked * dense
    assert share < least / dense + 2e-4, "the hint asks for hardly more than is needed"
