"""Plans: names, patterns, and a file that anybody may have written."""

import json

import pytest

from layers import convolution, product
from lowering import site_of
from nncc.device_profiles.errors import PlanError, RankError, UnknownForm
from nncc.passes.forms import Dense, LowRank, Prune, Quantize, Sum, parse
from nncc.passes.plan import MOST_LAYERS, MOST_PATTERNS, Pattern, Plan, loads

SITE = site_of(convolution("conv", m=12, c=8, kernel=(3, 3)))
SMALL = site_of(product("product", m=4, n=8))


def named(site, name):
    from dataclasses import replace

    return replace(site, name=name)


SITES = [named(SITE, "/body/a"), named(SITE, "/body/b"), named(SMALL, "/head")]


def test_the_first_pattern_that_matches_counts_and_names_come_before_patterns():
    plan = Plan(
        {"/body/a": Dense()},
        (Pattern("/body/*", LowRank(2)), Pattern("*", Quantize(4))),
    )
    assert dict(plan.checked(SITES).forms) == {
        "/body/a": Dense(),
        "/body/b": LowRank(2),
        "/head": Quantize(4),
    }


def test_a_layer_that_a_pattern_does_not_fit_stays_dense_and_is_told_of():
    plan, reasons = Plan({}, (Pattern("*", LowRank(6)),)).resolved(SITES)
    assert plan.changed == ("/body/a", "/body/b")
    assert reasons["/head"].startswith(
        "lowrank(j=6) does not fit: rank j=6 is outside 1 … min"
    )


@pytest.mark.parametrize(
    ("plan", "error", "said"),
    [
        (Plan({"/boddy/a": Dense()}), PlanError, "'/boddy/a'.*did you mean '/body/a'"),
        (Plan({"/head": LowRank(6)}), RankError, "layer '/head': rank j=6"),
        (Plan({}, (Pattern("x*", Dense()),)), PlanError, "'x\\*' matches no layer"),
        (Plan({}, (Pattern("/h*", LowRank(6)),)), PlanError, "fits none of the 1 layers"),
    ],
)
def test_a_plan_that_does_not_fit_the_model_is_refused(plan, error, said):
    with pytest.raises(error, match=said):
        plan.checked(SITES)


def test_a_plan_with_patterns_reads_back_as_it_was():
    form = Sum((Quantize(2), Prune(0.01)))
    plan = Plan({"a": form}, (Pattern("layer[12].*", LowRank(4, form)),))
    assert loads(plan.dumps()) == plan
    assert loads(plan.dumps()).dumps() == plan.dumps()


def test_texts_and_objects_mean_the_same():
    said = {"schema": 1, "layers": {"a": "quantize(k=2) + prune(1%)"}}
    assert loads(json.dumps(said)) == Plan({"a": parse("quantize(k=2) + prune(1%)")})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"schema": 1, "layers": {"a": "quantise(2)"}}, "layer 'a': column 1: unknown form"),
        ({"schema": 1, "layers": {"a": {"form": "x"}}}, "layer 'a': unknown form 'x'"),
        ({"schema": 1, "layers": {}, "patern": []}, "a plan has no 'patern'"),
        ({"schema": 1, "patterns": {}}, '"patterns" to be a list'),
        ({"schema": 1, "patterns": [{"match": "*"}]}, "pattern 1: expected {"),
        ({"schema": 1, "patterns": [{"match": 3, "form": "dense"}]}, "a pattern of 1 to"),
        ({"schema": 1, "patterns": [{"match": "", "form": "dense"}]}, "a pattern of 1 to"),
        (
            {"schema": 1, "patterns": [{"match": "*", "form": "den"}]},
            r"pattern 1 \('\*'\): column 1: unknown form 'den'",
        ),
        (
            {"schema": 1, "patterns": [{"match": "*", "form": "dense"}] * (MOST_PATTERNS + 1)},
            "1001 patterns",
        ),
        (
            {"schema": 1, "layers": {str(at): "dense" for at in range(MOST_LAYERS + 1)}},
            "layers; 100000 are enough",
        ),
    ],
)
def test_a_wrong_plan_is_told_in_its_place(data, said):
    with pytest.raises(PlanError, match=said) as caught:
        loads(json.dumps(data))
    assert len(str(caught.value)) < 1000


def test_a_layer_given_twice_is_refused_as_nobody_can_know_which_is_meant():
    text = '{"schema": 1, "layers": {"a": "dense", "a": "half"}}'
    with pytest.raises(PlanError, match="'a' is given twice"):
        loads(text)


def test_nested_objects_are_bounded():
    text = '{"form": "lowrank", "j": 1, "u": ' * 50 + '"dense"' + "}" * 50
    with pytest.raises(PlanError, match="deeper than 12"):
        loads('{"schema": 1, "layers": {"a": ' + text + "}}")


def test_a_pattern_made_to_be_slow_is_not():
    """Backtracking over a hundred stars would take longer than anybody can wait."""
    assert not Pattern("*a" * 100 + "b", Dense()).takes("a" * 1000)


def test_an_unknown_form_keeps_its_kind():
    with pytest.raises(UnknownForm):
        loads('{"schema": 1, "layers": {"a": {"form": "nothing"}}}')
