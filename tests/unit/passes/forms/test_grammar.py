"""Texts of forms: what they mean, what they are written as, and where a mistake stands."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncc.device_profiles.errors import BadExpression, NnccError, PlanError, UnknownForm
from nncc.passes.forms import (
    Affine,
    Binary,
    Blocks,
    Dense,
    Folded,
    LowRank,
    Prune,
    Quantize,
    Sum,
    TensorTrain,
    from_json,
    parse,
    text,
    to_json,
)

QP = Sum((Quantize(2), Prune(0.01)))


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ("dense", Dense()),
        ("dense()", Dense()),
        (" quantize ( k = 2 ) ", Quantize(2)),
        ("quantize(2)", Quantize(2)),
        ("quantize(k=2,)", Quantize(2)),
        ("quantize(4, channel)", Quantize(4, "channel")),
        ("quantize(per=channel, 4)", Quantize(4, "channel")),
        ("quantize(per='channel', k=4)", Quantize(4, "channel")),
        ("prune(1%)", Prune(0.01)),
        ("prune(kappa=1.5e-2)", Prune(0.015)),
        ("prune(kappa=.5)", Prune(0.5)),
        ("prune(kappa=7)", Prune(7)),
        ("prune(kappa=5%, by=l1-penalty)", Prune(0.05, "l1-penalty")),
        ("quantize(k=2) + prune(kappa=1%)", QP),
        ("(quantize(k=2) + prune(kappa=1%))", QP),
        ("((quantize(k=2)) + (prune(kappa=1%)))", QP),
        ("sum((quantize(k=2), prune(1%)))", QP),
        (
            "quantize(k=2) + prune(kappa=1%) + lowrank(j=2)",
            Sum((Quantize(2), Prune(0.01), LowRank(2))),
        ),
        ("(quantize(2) + prune(1%)) + lowrank(2)", Sum((QP, LowRank(2)))),
        (
            "lowrank(j=64, u=quantize(k=2)+prune(1%), v=quantize(k=4))",
            LowRank(64, QP, Quantize(4)),
        ),
        ("lowrank(64, none, v=binary)", LowRank(64, None, Binary())),
        ("folded(1, blocks(4, lowrank(16)))", Folded(1, Blocks(4, LowRank(16)))),
        ("blocks(of=lowrank(j=2), k=4)", Blocks(4, LowRank(2))),
        ("tt((2, 3))", TensorTrain((2, 3))),
        ("tt(ranks=(2, 3,), cores=affine(8))", TensorTrain((2, 3), cores=Affine(8))),
        ("tt(error=10%)", TensorTrain(error=0.1)),
    ],
)
def test_a_text_means_its_form(said, form):
    found = parse(said)
    assert found == form
    assert repr(found) == repr(form)  # 1 and 1.0 are told apart
    assert parse(text(found)) == found


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (Dense(), "dense"),
        (Binary(), "binary"),
        (QP, "quantize(k=2) + prune(kappa=0.01)"),
        (Sum((QP, LowRank(2))), "(quantize(k=2) + prune(kappa=0.01)) + lowrank(j=2)"),
        (LowRank(4, u=QP), "lowrank(j=4, u=quantize(k=2) + prune(kappa=0.01))"),
        (Blocks(4, LowRank(16)), "blocks(k=4, lowrank(j=16))"),
        (TensorTrain((2, 3)), "tt(ranks=(2, 3))"),
        (Prune(3), "prune(kappa=3)"),
        (Prune(1e-5), "prune(kappa=1e-05)"),
    ],
)
def test_a_form_is_written_without_its_defaults(form, said):
    assert text(form) == said


@pytest.mark.parametrize(
    ("said", "column", "parts"),
    [
        ("", 1, ["expected a form", "the end"]),
        ("quantise(k=2)", 1, ["unknown form 'quantise'", "did you mean 'quantize'?"]),
        ("quantize(k=2) + prun(1%)", 17, ["unknown form 'prun'", "'prune'"]),
        ("quantize(k=2) prune(1%)", 15, ["expected '+' or the end", "'prune'"]),
        ("quantize(k=2) +", 16, ["expected a form", "the end"]),
        ("quantize(k=2", 13, ["expected ',' or ')'", "the end"]),
        ("quantize(k=2))", 14, ["'+' or the end", "')'"]),
        ("quantize(k=)", 12, ["k: expected a whole number", "')'"]),
        ("quantize(k=2.5)", 12, ["k: expected a whole number", "2.5"]),
        ("quantize(k=2%)", 12, ["k: expected a whole number", "2%"]),
        ("quantize(k=two)", 12, ["k: expected a whole number", "'two'"]),
        ("quantize(k=2, k=3)", 15, ["k is given twice"]),
        ("quantize(2, none)", 13, ["per: expected a word", "'none'"]),
        ("quantize(2, layer, 0, row, 7)", 28, ["expected ')', found '7'"]),
        ("quantize(kk=2)", 10, ["quantize has no 'kk'", "did you mean 'k'?"]),
        ("quantize()", 1, ["quantize needs k"]),
        ("prune(kappa=1%) + quantize", 19, ["quantize needs k"]),
        ("blocks(4, dense)", 11, ["of: expected lowrank", "dense"]),
        ("blocks(4, 3)", 11, ["of: expected lowrank", "'3'"]),
        ("quantize(k=1)", 1, ["form 'quantize' has 1 levels; choose 2"]),
        ("lowrank(j=2, u=affine(bits=9))", 16, ["affine", "bits=9"]),
        ("prune(kappa=150%)", 1, ["kappa=1.5"]),
        ("dense + dense + dense + dense + dense", 1, ["sum of 5 forms", "2 to 4"]),
        ("prune(1%, by=l3)", 14, ["by: expected l0, l1", "'l3'"]),
        ("lowrank(j=99999999999999999999)", 11, ["beyond every size"]),
        ("lowrank(j=3q)", 11, ["expected a number", "3q"]),
        ("tt(ranks=2)", 10, ["ranks: expected a list of", "'2'"]),
        ("tt(ranks=(2, x))", 14, ["ranks: expected a whole number", "'x'"]),
        ("quantize{k=2}", 9, ["nothing is written with '{'"]),
        ("quantize(k=2, per='chan", 19, ["string that begins here does not end"]),
        ('quantize(k=2, per="\\q")', 19, ["escape that JSON does not have"]),
        ("ﬁlters(3)", 1, ["nothing is written with"]),
    ],
)
def test_a_mistake_is_shown_where_it_stands(said, column, parts):
    with pytest.raises(BadExpression) as caught:
        parse(said, where="--form")
    message = str(caught.value)
    assert message.startswith(f"--form: column {column}: "), message
    assert all(part in message for part in parts), message
    line, caret = caught.value.excerpt
    assert line == said
    assert caret == " " * (column - 1) + "^"


def test_the_caret_stands_below_the_mistake_in_a_long_text_too():
    said = (
        " + ".join(["lowrank(j=2, u=quantize(k=2), v=quantize(k=4))"] * 3) + " + quantise(2)"
    )
    with pytest.raises(BadExpression, match="column 148: unknown form") as caught:
        parse(said)
    line, caret = caught.value.excerpt
    assert len(line) <= 72
    assert line[len(caret) - 1 :].startswith("quantise")


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("(" * 5000, "5000 characters"),
        ("(" * 4000, "deeper than"),
        ("lowrank(j=2, u=" * 200 + "dense" + ")" * 200, "deeper than"),
        ("tt(ranks=(" + "1," * 1500 + "))", "more than 256 items"),
        (f"quantize(k=2, per={'a' * 300})", "a word of 300 letters"),
        ("prune(kappa=1e9999)", "finite"),
        ("prune(kappa=-1)", "kappa=-1"),
    ],
)
def test_a_text_cannot_ask_for_more_than_a_form_needs(said, what):
    with pytest.raises(NnccError, match=what) as caught:
        parse(said)
    assert len(str(caught.value)) < 1000


@given(st.text(alphabet="quantizelowrankprune(),=+%.0123456789-'\" \\juvk\n", max_size=60))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_any_text_is_a_form_or_an_error_of_ours(said):
    try:
        form = parse(said)
    except PlanError:
        return
    assert parse(text(form)) == form


def test_a_plan_takes_texts_where_it_takes_forms():
    said = {"form": "lowrank", "j": 8, "u": "quantize(k=2) + prune(1%)", "v": None}
    assert from_json(said) == LowRank(8, u=QP)
    assert from_json("quantize(k=2) + prune(1%)") == QP


def test_json_leaves_out_defaults_and_keeps_kinds_of_numbers():
    assert to_json(QP) == {
        "form": "sum",
        "parts": [{"form": "quantize", "k": 2}, {"form": "prune", "kappa": 0.01}],
    }
    one = from_json({"form": "prune", "kappa": 1})
    assert repr(one) == repr(Prune(1))


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (3, ["expected a form such as", "3"]),
        ({}, ["expected a form such as"]),
        ({"form": ["dense"]}, ["expected a form such as"]),
        ({"form": "lowrank"}, ["takes j, u, v", "give j"]),
        ({"form": "lowrank", "j": 2, "i": 1}, ["leave out 'i'"]),
        ({"form": "lowrank", "j": 2.0}, ["whole number", "2.0"]),
        ({"form": "lowrank", "j": True}, ["whole number", "True"]),
        ({"form": "lowrank", "j": 2**60}, ["beyond every size"]),
        ({"form": "lowrank", "j": 2, "u": "quantise(2)"}, ["p.u: column 1", "'quantize'"]),
        ({"form": "lowrank", "j": 2, "u": {"form": "lowrank"}}, ["p.u", "give j"]),
        ({"form": "sum", "parts": ["dense", "quant(2)"]}, ["p.parts[1]", "'quant'"]),
        ({"form": "sum", "parts": "dense + dense"}, ["parts of form 'sum'", "a list of"]),
        ({"form": "sum", "parts": [3, 4]}, ["parts of form 'sum'"]),
        ({"form": "sum", "parts": ["dense"] * 300}, ["300", "256"]),
        ({"form": "tt", "ranks": [2, 3.5]}, ["ranks of form 'tt'", "3.5"]),
        ({"form": "prune", "kappa": float("nan")}, ["finite"]),
        ({"form": "prune", "kappa": float("inf")}, ["finite"]),
        ({"form": "prune", "kappa": 2.0}, ["kappa=2.0"]),
        ({"form": "quantize", "k": 2, "per": "x" * 1000}, ["1000 letters"]),
    ],
)
def test_what_a_plan_says_wrongly_is_told_with_its_place(data, parts):
    with pytest.raises(PlanError) as caught:
        from_json(data, where="p")
    message = str(caught.value)
    assert message.startswith("p")
    assert all(part in message for part in parts), message
    assert len(message) < 1000


def test_an_unknown_form_of_a_plan_is_of_its_own_kind():
    with pytest.raises(UnknownForm, match="did you mean 'lowrank'"):
        from_json({"form": "lowrang", "j": 2})


def test_forms_within_forms_are_bounded():
    deep: object = "dense"
    for _ in range(200):
        deep = {"form": "lowrank", "j": 1, "u": deep}
    with pytest.raises(PlanError, match="deeper than 12"):
        from_json(json.loads(json.dumps(deep)))
