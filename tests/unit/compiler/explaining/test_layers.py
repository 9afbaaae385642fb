"""Why a layer has its form, in words: pure functions of values made by hand."""

import pytest

from explained import candidate, changed, dense, held, layer, time, weighed
from nncc.compiler.explaining.layers import split, stories
from nncc.compiler.explaining.limits import limits
from nncc.compiler.explaining.margins import margins
from nncc.compiler.explaining.net import Explanation
from nncc.compiler.writing.alternatives import Budget, Time
from nncc.device_profiles.errors import UsageError

A = layer(
    "a",
    candidate("dense", 0.0, 100, 4.0),
    candidate("lowrank(j=12)", 0.08, 75, 3.0),
    candidate("lowrank(j=8)", 0.2, 50, 2.0),
    candidate("lowrank(j=4)", 0.5, 25, 1.0),
    chosen=2,
)
B = layer("b", candidate("dense", 0.0, 100, 1.0), candidate("lowrank(j=4)", 0.9, 90, 0.9))
SMALL = "2 × 5 is too small: no rank on steps of 4"
C = layer("c", candidate("dense", 0.0, 10, 0.5), reason=SMALL)
ROWS = (
    changed("a", "lowrank(j=8)", 4.0, 2.0),
    dense("b", "left dense by the allocation", 1.0),
    dense("c", SMALL, 0.5, shape=(1, 2, 5)),
)


def explanation(found=None, *rows, **more):
    kept = held(found or weighed(A, B, C), *(rows or ROWS), **more)
    assert kept.weighed is not None
    return Explanation(kept, limits(kept), margins(kept.weighed), stories(kept))


def test_the_next_candidates_on_both_sides_are_told_with_their_price():
    story = explanation().story("a")
    assert story.cheaper is not None and story.cheaper.end.form == "lowrank(j=4)"
    assert story.cheaper.value == pytest.approx(0.003) and story.cheaper.cost == -25
    assert story.better is not None and story.better.end.form == "lowrank(j=12)"
    assert story.better.value == pytest.approx(-0.0012) and story.better.cost == 25


def test_it_says_what_was_minimised_under_which_budget_and_what_it_saves():
    story = explanation().story("a")
    assert "least sum of divergence of the outputs under macs <= 0.7" in story.why
    assert "saves 50 % of its multiply-adds" in story.why
    assert "100 % of the sum over all layers" in story.why
    assert any("from rank 8 the next that was weighed is 4" in text for text in story.bounds)


def test_a_dense_layer_says_why_saving_there_is_too_dear():
    story = explanation().story("b")
    # 0.009 for 10 of cost here, 0.003 for 25 in the next step of a: 7.5 times the price
    assert (
        story.kind == "not worth it" and "7.50 x the price of the next step in a" in story.why
    )


def test_a_layer_off_the_lattice_says_so():
    story = explanation().story("c")
    assert story.kind == "too small" and story.why.startswith("2 × 5 is too small")
    assert f"lattice: {SMALL}" in story.bounds


def test_a_layer_that_lost_when_measured_tells_both_times():
    reason = "measured 41 us (predicted 30), dense 36 us: lowrank(j=8) went back"
    rows = (dense("a", reason, 4.0, status="reverted"), *ROWS[1:])
    story = explanation(None, *rows).story("a")
    assert story.kind == "slower when measured" and story.why == reason


def test_a_layer_that_the_gate_restored_says_so():
    reason = "put back: the model fails the quality gate with less"
    story = explanation(None, dense("a", reason, 4.0), *ROWS[1:]).story("a")
    assert story.kind == "quality gate" and story.why.startswith(reason)


def test_the_margins_are_the_cheapest_saving_and_the_best_gain():
    found = margins(weighed(A, B, C))
    assert found.saving is not None and found.gaining is not None
    assert (found.saving.layer, found.saving.end.form) == ("a", "lowrank(j=4)")
    assert (found.gaining.layer, found.gaining.end.form) == ("a", "lowrank(j=12)")
    assert found.gaining.price <= found.saving.price  # the budget's price lies between


def two(stored: float, time: float):
    """Budgets of size and time, with what is taken of both, on layers that trade them."""
    cheap = layer(
        "a",
        candidate("dense", 0.0, 100, 4.0),
        candidate("lowrank(j=8)", 0.2, 50, 2.0),
        candidate("lowrank(j=4)", 0.5, 25, 1.0),
        candidate("quantize(k=4)", 0.3, 10, 2.5),
        chosen=1,
    )
    found = weighed(cheap, C)
    assert found.choice is not None
    budgets = (
        Budget(text="size <= 0.25", most=0.25, used=stored),
        Budget(text="predicted speed-up >= 2 x", most=0.5, used=time),
    )
    more = {"quantities": ("bits", "latency"), "budgets": budgets}
    found = found.model_copy(update={"choice": found.choice.model_copy(update=more)})
    said = "size <= 0.25 (reached 0.2), predicted speed-up >= 2 x (reached 2 x)"
    return explanation(found, ROWS[0], ROWS[2], budget=said, calibrated=True)


def test_of_two_budgets_it_names_which_binds_and_what_each_still_has():
    lines = two(stored=0.2, time=0.4999).lines
    (said,) = [line for line in lines if line.startswith("budgets: ")]
    assert "size <= 0.25 does not bind (20 % of it is left)" in said
    assert "predicted speed-up >= 2 x binds (0.02 % of it is left)" in said


def test_the_next_saving_is_of_the_budget_that_binds_and_tells_the_other():
    """In time only the thinner product saves; in bits codes do, for less."""
    in_time, in_bits = two(0.2, 0.5), two(0.25, 0.4)
    assert in_time.margins.saving is not None and in_bits.margins.saving is not None
    assert in_time.margins.saving.end.form == "lowrank(j=4)"
    assert in_bits.margins.saving.end.form == "quantize(k=4)"
    (said,) = [x for x in in_time.lines if x.startswith("the next saving")]
    first, other = said.split(" of divergence for ")[1].split(" and ")
    assert first.endswith("% of the net's predicted time") and first.startswith("-")
    assert other.endswith("% of the net's bits") and other.startswith("-")
    (said,) = [x for x in in_bits.lines if x.startswith("the next saving")]
    assert "% of the net's bits and +" in said  # codes save bits, and take time


def test_of_what_is_not_held_it_says_by_how_much():
    (said,) = [x for x in two(0.3, 0.5).lines if x.startswith("budgets: ")]
    assert "size <= 0.25 is not held (20 % too much)" in said


def test_what_takes_most_of_a_time_is_said_to_bound_it():
    assert split(time(1.0)).endswith("arithmetic bounds it")
    slow = Time(launches=3, launch_ms=0.006, compute_ms=0.001, memory_ms=0.003)
    assert split(slow).startswith("10 us predicted in 3 launches: 60 % launches")
    assert "launch overhead bounds it" in split(slow)
    heavy = Time(launches=1, launch_ms=0.0, compute_ms=1.0, memory_ms=3.0)
    assert "memory bandwidth bounds it" in split(heavy)


def test_an_unknown_layer_names_the_nearest():
    with pytest.raises(UsageError, match=r"no layer 'conv\.12'; did you mean conv_12"):
        explanation(weighed(A), changed("conv_12", "lowrank(j=8)", 4.0, 2.0), ROWS[1]).story(
            "conv.12"
        )


def test_the_summary_names_the_cap_and_the_budget():
    text = "\n".join(explanation().lines)
    assert "changed 1 of 3 layers" in text and "under macs <= 0.7" in text
    assert "9.1 % of the original's time is in what no form of this plan changes" in text
    assert "caps the speed-up at 11.00 x" in text


def test_a_layer_of_no_known_alternatives_is_explained_by_its_reason():
    story = stories(held(None, *ROWS))[1]
    assert story.why == "left dense by the allocation" and story.cheaper is None
