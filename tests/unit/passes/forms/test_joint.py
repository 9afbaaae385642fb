"""One kappa for a whole net: the exact global choice, and never above equal shares."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from form_weights import moments
from nncc.device_profiles.errors import PlanError, RankError
from nncc.passes.forms import (
    Affine,
    Binary,
    LowRank,
    Prune,
    Quantize,
    Sum,
    parse,
    squared_error,
    text,
)
from nncc.passes.forms.sparse.joint import joint, joint_forms, net_part, shared_forms

SHAPES = {"a": (1, 20, 30), "b": (1, 16, 8, 3, 3), "c": (1, 10, 64)}
SCALES = {"a": 1.0, "b": 0.1, "c": 3.0}


def net(seed=0):
    rng = np.random.default_rng(seed)
    return {n: (rng.laplace(size=s) * SCALES[n]).astype(np.float32) for n, s in SHAPES.items()}


def seen(W):
    return {name: moments((1, 1, w[0, 0].size)) for name, w in W.items()}


def error(W, terms, metrics=None):
    known = metrics or {}
    return sum(
        squared_error(w, terms[n], known[n]) if n in known else squared_error(w, terms[n])
        for n, w in W.items()
    )


def equal_shares(W, form, total, metrics=None):
    """Every layer with its own share of the same total."""
    whole = sum(w.size for w in W.values())
    known = metrics or {}
    forms = {n: joint_forms({n: w}, form, total * w.size // whole)[n] for n, w in W.items()}
    return error(
        W,
        {
            n: forms[n].compress(w, metric=known[n]) if known else forms[n].compress(w)
            for n, w in W.items()
        },
        metrics,
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_pruning_is_the_best_of_every_choice_of_a_small_net(seed, kappa):
    rng = np.random.default_rng(seed)
    W = {n: rng.integers(-8, 9, (1, 2, 2)).astype(np.float32) for n in "ab"}
    everything = np.concatenate([w.ravel() for w in W.values()])
    best = min(
        float(np.square(everything[list(out)]).sum())
        for out in itertools.combinations(range(8), 8 - kappa)
    )
    terms = joint(W, Prune(1), kappa)
    assert error(W, terms) == best
    assert sum(len(term.index) for term in terms.values()) == kappa


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_given_levels_are_corrected_as_well_as_any_choice(seed, kappa):
    """Theorem 4.1 of LC part V over a whole net: the κ largest residuals of both layers."""
    rng = np.random.default_rng(seed)
    W = {n: (rng.integers(-12, 13, (1, 2, 2)) / 4).astype(np.float32) for n in "ab"}
    form = Sum((Binary(scaled=False), Prune(1)))
    residual = np.concatenate([np.square(np.abs(w.ravel()) - 1) for w in W.values()])
    best = float(np.sort(residual)[: 8 - kappa].sum())
    assert error(W, joint(W, form, kappa)) == pytest.approx(best, abs=1e-6)


def test_pruning_keeps_the_largest_weights_of_the_net():
    W = net()
    everything = np.concatenate([w.ravel() for w in W.values()])
    least = np.sort(np.abs(everything))[-100]
    for name, term in joint(W, Prune(0.5), 100).items():
        np.testing.assert_array_equal(term.decompress() != 0, np.abs(W[name]) >= least)


@pytest.mark.parametrize(
    "form",
    [
        "prune(1)",
        "quantize(k=2) + prune(1)",
        "quantize(k=4, per=channel) + prune(1)",
        "affine(bits=2) + prune(1)",
        "lowrank(j=2) + prune(1)",
    ],
)
def test_the_error_is_below_that_of_equal_shares(form):
    W = net()
    forms = joint_forms(W, parse(form), 90)
    given = [f if isinstance(f, Prune) else f.parts[1] for f in forms.values()]
    assert sum(part.kappa for part in given) == 90
    assert error(W, joint(W, parse(form), 90)) < 0.95 * equal_shares(W, parse(form), 90)


@pytest.mark.parametrize("form", ["prune(1)", "quantize(k=2) + prune(1)"])
def test_the_error_of_the_outputs_is_never_above_that_of_equal_shares(form):
    W = {n: w.reshape(1, -1, w.size // w.shape[1])[:, :, :24] for n, w in net().items()}
    metrics = seen(W)
    found = error(W, joint(W, parse(form), 60, metrics), metrics)
    assert found <= equal_shares(W, parse(form), 60, metrics) * (1 + 1e-12)


def test_layers_of_different_forms_share_one_kappa():
    W = net()
    forms = {
        "a": Prune(0.1),
        "b": Sum((Quantize(2), Prune(0.1))),
        "c": Sum((LowRank(1), Prune(0.1))),
    }
    found = shared_forms(W, forms, 0.05)
    counts = [found["a"].kappa, found["b"].parts[1].kappa, found["c"].parts[1].kappa]
    assert sum(counts) == int(0.05 * sum(w.size for w in W.values()))
    assert found["b"].parts[0] == Quantize(2) and found["c"].parts[0] == LowRank(1)
    assert counts[1] < counts[2]  # the weights of b are thirty times smaller


def test_one_soft_threshold_for_the_net_is_the_projection_on_one_ball():
    """Σ‖S_l‖₁ ≤ κ: every weight nearer to zero by the same θ."""
    W = net()
    terms = joint(W, Prune(0.3, "l1"), 0.2)
    everything = np.concatenate([w.ravel() for w in W.values()]).astype(np.float64)
    S = np.concatenate([t.decompress().ravel() for t in terms.values()])
    norm = np.abs(everything).sum()
    assert np.abs(S).sum() == pytest.approx(0.2 * norm, rel=1e-3)
    kept = S != 0
    theta = np.abs(everything[kept]) - np.abs(S[kept])
    np.testing.assert_allclose(theta, theta.mean(), atol=5e-3 * np.abs(S).max())
    assert np.abs(everything[~kept]).max() <= theta.mean() * 1.01


def test_a_form_says_whether_its_kappa_is_of_the_net():
    assert net_part(parse("prune(1%, of=net)")) == Prune(0.01, of="net")
    assert net_part(parse("quantize(2) + prune(1%, of=net)")) == Prune(0.01, of="net")
    assert net_part(parse("quantize(2) + prune(1%)")) is None
    assert text(Prune(0.01, of="net")) == "prune(kappa=0.01, of=net)"
    for word in (
        "lowrank(j=2, u=prune(1%, of=net))",
        "prune(1%, of=net) + prune(2%, of=net)",
        "lowrank(j=2, u=prune(1%, of=net)) + prune(1%, of=net)",
    ):
        with pytest.raises(PlanError, match="not one part that the net's corrections are for"):
            net_part(parse(word))
    with pytest.raises(PlanError, match="by=l0-penalty is the same for a layer and for a net"):
        Prune(2.0, "l0-penalty", "net")


def test_one_layer_alone_takes_the_kappa_of_the_net_as_its_own():
    W = net()["a"]
    assert len(Prune(50, of="net").compress(W).index) == 50
    assert len(Prune(10**6, of="net").compress(W).index) == W.size


def test_more_corrections_than_weights_are_refused():
    with pytest.raises(RankError, match="kappa=9999 corrections are more than the 2392"):
        joint_forms(net(), Prune(1), 9999)
    with pytest.raises(PlanError, match="not one part"):
        joint(net(), Sum((Quantize(2), Affine(2))), 10)
