"""Counts of LC part V, tables 3, 4 and 6, from our counters on the same architectures.

Weights are noise: counts do not look at values. Two things of the papers' tables are not in
their text, and both are told apart here.

*Multiplications of Q.* Appendix B.2.2 spends k multiplications a neuron, 2 for one bit. The
tables spend one: by the text's count, which is ours, rho_mult of table 4 (Q+L, nothing to
choose) is 3 to 10 % below what they say, and with k − 1 within 1 % of it. One of two can
indeed be saved, for Σ x is common to all neurons; `tables_multiply` takes it away.

*Where corrections fall.* κ is of the whole net, and where the corrections go is the trained
weights' matter (their figure 6): early layers have more, and are applied at more positions.
Here the weights of layer l are spread evenly over ±n_l^−a; a is found from rho_mult for each
row, and rho_s and rho_add of the row are what is then predicted.

One number is taken for a misprint: ResNet32 Q+L of rank 3 has rho_mult 7.44 where its
neighbours rise 7.64, 7.87, 7.92; ours is 7.76. Table 6 has lost its column of models; ranks 3
and 4 with 3 % are the ones that fit all four ResNets, and table 1 says 2 and 3 with 2 % for
VGG16 (section 5.3 says 3 %, which does not fit).
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.optimize import brentq

import cifar_nets
from nncc.passes.counts import Counts, net_counts
from nncc.passes.forms import Cost, LowRankTerm, Prune, PruneTerm, Quantize, SumTerm, Term
from nncc.passes.forms.sparse.joint import joint
from nncc.passes.model import Model
from nncc.passes.sites import Site, find_sites

CLOSE = 0.03
ROUNDED = 0.005

TABLE_3 = [
    (20, 0.01, 22.67, 0.97, 30.74),
    (20, 0.02, 19.44, 0.96, 19.74),
    (20, 0.03, 17.08, 0.94, 15.80),
    (20, 0.05, 13.84, 0.92, 11.54),
    (32, 0.01, 22.81, 0.97, 30.52),
    (32, 0.02, 19.54, 0.96, 19.85),
    (32, 0.03, 17.14, 0.94, 15.80),
    (32, 0.05, 13.84, 0.92, 11.56),
    (56, 0.005, 25.04, 0.98, 49.79),
    (56, 0.01, 22.87, 0.97, 32.04),
    (56, 0.02, 19.55, 0.96, 20.46),
    (56, 0.03, 17.11, 0.94, 15.98),
    (110, 0.005, 25.03, 0.99, 55.63),
    (110, 0.01, 22.80, 0.98, 33.94),
    (110, 0.02, 19.47, 0.96, 23.27),
    (110, 0.03, 17.04, 0.95, 17.84),
]
"""ResNet depth, κ, rho_s, rho_add, rho_mult of Q+P."""

TABLE_4 = [
    (20, 1, 20.71, 0.96, 21.45),
    (20, 2, 16.62, 0.92, 11.26),
    (20, 3, 13.88, 0.89, 7.64),
    (32, 1, 20.94, 0.97, 21.89),
    (32, 2, 16.81, 0.92, 11.47),
    (32, 3, 14.04, 0.89, 7.84),  # printed as 7.44
    (56, 1, 21.04, 0.96, 22.19),
    (56, 2, 16.91, 0.92, 11.61),
    (56, 3, 14.10, 0.89, 7.87),
    (110, 1, 21.11, 0.96, 22.38),
    (110, 2, 16.96, 0.92, 11.70),
    (110, 3, 14.18, 0.89, 7.92),
]
"""ResNet depth, rank, rho_s, rho_add, rho_mult of Q+L."""

TABLE_6 = [
    ("resnet20", 3, 0.03, 15.84, 5.72),
    ("resnet20", 4, 0.03, 13.34, 4.70),
    ("resnet32", 3, 0.03, 15.98, 5.92),
    ("resnet32", 4, 0.03, 13.47, 4.85),
    ("resnet56", 3, 0.03, 16.06, 5.99),
    ("resnet56", 4, 0.03, 13.54, 4.90),
    ("resnet110", 3, 0.03, 16.03, 6.38),
    ("resnet110", 4, 0.03, 13.53, 5.17),
    ("vgg16", 2, 0.02, 60.99, 8.20),
    ("vgg16", 3, 0.02, 56.58, 7.81),
]
"""Net, rank, κ, rho_s, and rho_add = rho_mult of L+P."""


@cache
def net(name: str) -> tuple[Model, tuple[Site, ...]]:
    model = (
        cifar_nets.vgg16() if name == "vgg16" else cifar_nets.resnet(int(name.lstrip("resnt")))
    )
    return model, tuple(find_sites(model)[0])


def noise(name: str, a: float = 0.0) -> dict[str, np.ndarray]:
    """Weights between −n^−a and n^−a, for n weights in the layer."""
    rng = np.random.default_rng(5)
    return {
        site.name: (2 * rng.random(site.shape, np.float32) - 1) * np.float32(site.weights**-a)
        for site in net(name)[1]
    }


@cache
def quantised(name: str) -> dict[str, Term]:
    return {at: Quantize(2).compress(W) for at, W in noise(name).items()}


def factors(name: str, j: int) -> dict[str, Term]:
    """Factors of rank j of every layer, 16 bits a number."""
    rng = np.random.default_rng(6)

    def half(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float16).astype(np.float32)

    made: dict[str, Term] = {}
    for site in net(name)[1]:
        g, m, *inputs = site.shape
        made[site.name] = LowRankTerm(half(g, m, j), half(g, j, *inputs))
    return made


def corrections(name: str, kappa: float, a: float) -> dict[str, Term]:
    """The κ largest weights of the net."""
    return dict(joint(noise(name, a), Prune(0.5), kappa))


def spread(name: str, kappa: float, share: float) -> float:
    """The exponent a that gives κ corrections `share` of all multiplications."""
    sites = net(name)[1]
    n = np.array([site.weights for site in sites], np.float64)
    macs = np.array([site.macs for site in sites], np.float64)

    def kept(a: float) -> np.ndarray:
        top = n**-a

        def over(threshold: float) -> float:
            return float(n @ np.maximum(0, 1 - threshold / top) - kappa * n.sum())

        return np.maximum(0, 1 - brentq(over, 0, top.max()) / top)

    return brentq(lambda a: float(kept(a) @ macs / macs.sum()) - share, -0.2, 1.0, xtol=1e-4)


def added(*parts: dict[str, Term]) -> dict[str, Term]:
    return {
        name: SumTerm(tuple(part[name] for part in parts), is_folded=True) for name in parts[0]
    }


def tables_multiply(name: str, terms: dict[str, Term]) -> dict[str, Cost]:
    """The costs with one multiplication less a neuron."""
    found: dict[str, Cost] = {}
    for site in net(name)[1]:
        cost = terms[site.name].cost()
        found[site.name] = replace(cost, mults=cost.mults - site.shape[0] * site.shape[1])
    return found


def counted(name: str, terms: dict[str, Term] | dict[str, Cost]) -> Counts:
    model, sites = net(name)
    return net_counts(model, sites, terms)


def corrected(
    name: str,
    kappa: float,
    rho: float,
    others: dict[str, Term],
    costs: Callable[[dict[str, Term]], dict[str, Term] | dict[str, Cost]],
) -> Counts:
    """The counts with corrections placed so that rho_mult comes out as `rho`."""
    alone = counted(name, costs(others))
    share = 1 / rho - alone.mults / alone.reference_ops
    return counted(
        name, costs(added(others, corrections(name, kappa, spread(name, kappa, share))))
    )


@pytest.mark.parametrize(("depth", "kappa", "rho_s", "rho_add", "rho_mult"), TABLE_3)
def test_table_3_quantisation_and_corrections(depth, kappa, rho_s, rho_add, rho_mult):
    name = f"resnet{depth}"
    counts = corrected(
        name, kappa, rho_mult, quantised(name), lambda terms: tables_multiply(name, terms)
    )

    assert counts.rho_s == pytest.approx(rho_s, rel=CLOSE)
    assert counts.rho_mult == pytest.approx(rho_mult, rel=CLOSE)
    assert counts.rho_add == pytest.approx(rho_add, abs=2 * ROUNDED)


@pytest.mark.parametrize(("depth", "rank", "rho_s", "rho_add", "rho_mult"), TABLE_4)
def test_table_4_quantisation_and_low_rank(depth, rank, rho_s, rho_add, rho_mult):
    name = f"resnet{depth}"
    terms = added(quantised(name), factors(name, rank))
    counts = counted(name, tables_multiply(name, terms))
    by_the_text = counted(name, terms)

    assert counts.rho_s == pytest.approx(rho_s, rel=0.005)
    assert counts.rho_mult == pytest.approx(rho_mult, rel=0.015)
    assert counts.rho_add == pytest.approx(rho_add, abs=2 * ROUNDED)
    assert by_the_text.rho_mult is not None
    assert 0.89 * rho_mult < by_the_text.rho_mult < 0.98 * rho_mult


@pytest.mark.parametrize(("name", "rank", "kappa", "rho_s", "rho"), TABLE_6)
def test_table_6_low_rank_and_corrections(name, rank, kappa, rho_s, rho):
    counts = corrected(name, kappa, rho, factors(name, rank), lambda terms: terms)

    assert counts.rho_s == pytest.approx(rho_s, rel=CLOSE)
    assert counts.rho_mult == counts.rho_add == pytest.approx(rho, rel=CLOSE)


def test_corrections_are_gap_coded_layer_by_layer():
    found = corrections("resnet20", 0.01, 0.15)
    kept = sum(len(term.index) for term in found.values() if isinstance(term, PruneTerm))
    assert kept == round(0.01 * sum(site.weights for site in net("resnet20")[1]))
