"""A kappa of the net, from a plan to the terms of its layers."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from models import ref_model
from nncc.compiler.allocation.given import given_patterns
from nncc.compiler.fitting.fit import fit
from nncc.device_profiles.errors import PlanError
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.sites import find_sites


@pytest.fixture(scope="module")
def sites():
    proto = onnx.load(ref_model("lenet5"))
    return find_sites(Model(ir.from_proto(proto), "lenet5", "0" * 64))[0]


def fitted(sites, *forms):
    plan = Plan({}, given_patterns(forms)).checked(sites)
    return {name: entry.term for name, entry in fit(sites, plan, jobs=1).items()}


def test_a_share_of_the_net_keeps_its_largest_weights(sites):
    terms = fitted(sites, "prune(2%, of=net)")
    W = np.concatenate([site.W().ravel() for site in sites])
    count = int(0.02 * W.size)
    least = np.sort(np.abs(W))[-count]
    assert sum(len(term.index) for term in terms.values()) == count
    for site in sites:
        kept = terms[site.name].decompress() != 0
        np.testing.assert_array_equal(kept, np.abs(site.W()) >= least)


def test_a_count_may_be_more_than_a_layer_has_weights(sites):
    terms = fitted(sites, "quantize(k=2) + prune(1000, of=net)")
    smallest = min(site.weights for site in sites)
    assert smallest < 1000
    assert sum(len(term.parts[1].index) for term in terms.values()) == 1000


def test_layers_that_say_another_kappa_have_their_own(sites):
    first = sites[0].name
    terms = fitted(sites, f"{first}=prune(50, of=net)", "prune(700, of=net)")
    assert len(terms[first].index) == 50
    assert sum(len(term.index) for term in terms.values()) == 750


def test_a_kappa_of_the_net_within_a_factor_is_refused(sites):
    with pytest.raises(PlanError, match="the net's corrections are for"):
        fitted(sites, "lowrank(j=2, u=prune(1%, of=net))")
