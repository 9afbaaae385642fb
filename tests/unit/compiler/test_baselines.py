import itertools
import json
import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models import ref_model
from nncc.compiler.allocation.baselines import alds, cepd
from nncc.compiler.allocation.baselines.energies import Energies, energies_of
from nncc.compiler.allocation.baselines.knob import Rows
from nncc.compiler.allocation.baselines.names import BASELINES
from nncc.compiler.allocation.baselines.pca import product_of_energies
from nncc.compiler.allocation.baselines.ranks import (
    constant_energy,
    constant_ratio,
    joint_cost,
)
from nncc.compiler.allocation.budget import check_budget
from nncc.compiler.allocation.survey import Search, survey
from nncc.compiler.commands.cli import main
from nncc.compiler.options import CompileOptions, Recipe
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.recipes_compared import DEFAULT, compared
from nncc.device_profiles.errors import UsageError
from nncc.device_profiles.registry import load
from nncc.passes.forms import Filters, LowRank, Metric, Sum, kernel_weights
from nncc.passes.normalise import normalise
from nncc.passes.sites import find_sites

SHAPES = ((8, 12), (16, 10), (6, 24))
BUDGETS = (0.9, 0.6, 0.3)
WITHOUT_OURS = tuple(name for name in DEFAULT if name in BASELINES)


@pytest.fixture(scope="module")
def weights():
    """Three matrices whose spectra fall at different speeds."""
    rng = np.random.default_rng(0)
    found = []
    for at, (m, n) in enumerate(SHAPES):
        U, s, V = np.linalg.svd(rng.standard_normal((m, n)), full_matrices=False)
        found.append((U * s * 0.6 ** (at * np.arange(len(s)))) @ V * (1 + at))
    return found


def rows(weights):
    """What the rules read, from the singular values."""
    found = []
    for W in weights:
        m, n = W.shape
        energy = np.linalg.svd(W, compute_uv=False) ** 2
        most = (m * n - 1) // (m + n)
        lost = 1 - np.cumsum(energy)[:most] / energy.sum()
        cost = np.arange(1.0, most + 1) * (m + n)
        found.append(Rows(np.arange(1, most + 1), cost, lost, float(m * n), energy.sum()))
    return found


def dense(rows):
    return sum(row.dense for row in rows)


def spent(rows, choice):
    return sum(
        row.dense if at < 0 else row.cost[at] for row, at in zip(rows, choice, strict=True)
    )


@pytest.mark.parametrize("budget", BUDGETS)
def test_svd_gives_every_layer_the_largest_common_share(weights, budget):
    table = rows(weights)
    found = constant_ratio(table, budget * dense(table))

    def shared(share):  # rank = floor of what the share buys, 1 at least
        ranks = [max(int(share * m * n / (m + n) + 1e-9), 1) for m, n in SHAPES]
        return [
            j - 1 if j <= len(row.cost) else -1 for j, row in zip(ranks, table, strict=True)
        ]

    fits = [
        s for s in np.linspace(0, 1, 20001) if spent(table, shared(s)) <= budget * dense(table)
    ]
    assert found == shared(max(fits))
    assert spent(table, found) <= budget * dense(table)


@pytest.mark.parametrize("budget", BUDGETS)
def test_svd_energy_keeps_the_largest_common_share_of_energy(weights, budget):
    table = rows(weights)
    found = constant_energy(table, budget * dense(table))

    def keeping(share):
        ranks = [
            next((at for at, lost in enumerate(row.lost) if 1 - lost >= share - 1e-12), -1)
            for row in table
        ]
        return ranks

    shares = sorted({1.0, *(1 - lost for row in table for lost in row.lost)})
    fits = [s for s in shares if spent(table, keeping(s)) <= budget * dense(table)]
    assert found == keeping(max(fits))


@pytest.mark.parametrize("budget", BUDGETS)
def test_l_rank_minimises_error_and_cost_together_at_one_price(weights, budget):
    table = rows(weights)
    energies = [energies_of(W.astype(np.float32)[None]) for W in weights]
    layers = [Energies(row, e) for row, e in zip(table, energies, strict=True)]
    found = joint_cost(layers, budget * dense(table))

    def lost(W, r):
        U, s, V = np.linalg.svd(W, full_matrices=False)
        return np.linalg.norm(W - (U[:, :r] * s[:r]) @ V[:r]) ** 2

    errors = [[lost(W, r) for r in range(1, min(W.shape) + 1)] for W in weights]

    def cheapest(price):
        ranks = [
            1 + int(np.argmin([e + price * (r + 1) * (m + n) for r, e in enumerate(of)]))
            for of, (m, n) in zip(errors, SHAPES, strict=True)
        ]
        return [j - 1 if j <= len(r.cost) else -1 for j, r in zip(ranks, table, strict=True)]

    turns = sorted(
        float(before - after) / (m + n)
        for of, (m, n) in zip(errors, SHAPES, strict=True)
        for before, after in itertools.pairwise(of)
    )
    between = [(a + b) / 2 for a, b in itertools.pairwise([0.0, *turns, 2 * turns[-1]])]
    tried = [cheapest(price) for price in between]
    assert found == max(
        (choice for choice in tried if spent(table, choice) <= budget * dense(table)),
        key=lambda choice: spent(table, choice),
    )


@pytest.mark.parametrize("budget", BUDGETS)
def test_pca_discards_the_eigenvalue_that_costs_the_product_of_energies_least(weights, budget):
    rng = np.random.default_rng(1)
    covariances = [
        (lambda X: X @ X.T / 400)(rng.standard_normal((n, n)) @ rng.standard_normal((n, 400)))
        for _, n in SHAPES
    ]
    table = rows(weights)
    energies = [
        energies_of(W.astype(np.float32)[None], Metric(H[None]))
        for W, H in zip(weights, covariances, strict=True)
    ]
    found = product_of_energies(
        [Energies(row, e) for row, e in zip(table, energies, strict=True)],
        budget * dense(table),
    )

    by_hand = [
        np.sort(np.linalg.eigvals(W @ H @ W.T).real)[::-1][: min(W.shape)]
        for W, H in zip(weights, covariances, strict=True)
    ]
    ranks = [len(values) for values in by_hand]

    def cost():
        return sum(min(j * (m + n), m * n) for j, (m, n) in zip(ranks, SHAPES, strict=True))

    while cost() > budget * dense(table):
        prices = [
            values[j - 1] / values[:j].sum() / (m + n) if j > 1 else np.inf
            for values, j, (m, n) in zip(by_hand, ranks, SHAPES, strict=True)
        ]
        ranks[int(np.argmin(prices))] -= 1
    expected = [
        j - 1 if j * (m + n) < m * n else -1 for j, (m, n) in zip(ranks, SHAPES, strict=True)
    ]
    assert found == expected


def test_pca_fits_project_the_responses_onto_their_leading_axes(weights):
    rng = np.random.default_rng(2)
    W = weights[1]
    X = rng.standard_normal((10, 10)) @ rng.standard_normal((10, 500))
    H = X @ X.T / 500
    axes = np.linalg.eigh(W @ H @ W.T)[1][:, ::-1][:, :4]
    term = LowRank(4).compress(W.astype(np.float32)[None], metric=Metric(H[None]))
    np.testing.assert_allclose(
        term.decompress()[0], axes @ axes.T @ W, atol=2e-3 * np.abs(W).max()
    )  # factors of 16 bits, damped moments


def layers_of(schemes=(0,)):
    with tempfile.TemporaryDirectory() as folder:
        model = normalise(ingest(ref_model("lenet5"), workdir=Path(folder)))
        search = Search(
            schemes=schemes,
            block_schemes=schemes,
            most_blocks=1 << 30,
            every_divisor=True,
            exact=False,
        )
        surveys = survey(find_sites(model)[0], search)
    return surveys, [alds.layer_of(entry, "size") for entry in surveys]


@pytest.fixture(scope="module")
def lenet():
    return layers_of()


def epsilon(layers, choice):
    return max(
        0.0 if row < 0 else float(layer.options[option].error[row])
        for layer, (option, row) in zip(layers, choice, strict=True)
    )


def test_the_error_of_alds_is_the_largest_first_lost_singular_value_of_its_blocks(lenet):
    surveys, layers = lenet
    at = int(np.argmax([entry.site.weights for entry in surveys]))
    F = surveys[at].site.W()[0].reshape(surveys[at].site.shape[1], -1)
    top = np.linalg.norm(F, 2)
    for option in layers[at].options[:3]:
        values = [
            np.linalg.svd(block, compute_uv=False) for block in np.split(F, option.k, axis=1)
        ]
        j = len(option.cost) // 2
        expected = max(s[j + 1] for s in values) / top
        assert option.error[j] == pytest.approx(expected, rel=1e-5)
        assert option.cost[j] == (j + 1) * (option.k * F.shape[0] + F.shape[1])


@pytest.mark.parametrize("budget", BUDGETS)
def test_optimal_ranks_have_the_least_common_error_that_fits(lenet, budget):
    _, layers = lenet
    options = [len(layer.options) // 2 for layer in layers]
    limit = budget * sum(layer.dense for layer in layers)
    found = alds.optimal_ranks(layers, options, limit)
    assert found is not None
    thresholds = sorted(
        {
            0.0,
            *(
                e
                for layer, at in zip(layers, options, strict=True)
                for e in layer.options[at].error
            ),
        }
    )

    def cost(threshold):
        total = 0.0
        for layer, at in zip(layers, options, strict=True):
            fits = np.flatnonzero(layer.options[at].error <= threshold)
            total += layer.options[at].cost[fits[0]] if len(fits) else layer.dense
        return total

    assert found[0] == next(t for t in thresholds if cost(t) <= limit)


@pytest.mark.parametrize("budget", BUDGETS)
def test_alds_ends_near_the_optimum_of_its_own_problem_and_twice_the_same(lenet, budget):
    from nncc.compiler.allocation.allocate import minimise_maximum
    from nncc.compiler.allocation.survey import table

    surveys, layers = lenet
    limit = budget * sum(layer.dense for layer in layers)
    found = alds.alternated(layers, limit, np.random.default_rng(0))
    assert found == alds.alternated(layers, limit, np.random.default_rng(0))
    assert sum(layer.cost(*pair) for layer, pair in zip(layers, found, strict=True)) <= limit
    optimum = minimise_maximum(table(surveys, "blockwise", "size"), limit).bound
    assert optimum <= epsilon(layers, found) <= 1.1 * optimum


def test_alds_plus_is_never_worse_than_alds_by_its_own_error(lenet):
    _, more = layers_of((0, 1, 2, 3))
    _, layers = lenet
    for budget in BUDGETS:
        limit = budget * sum(layer.dense for layer in layers)
        plain = alds.alternated(layers, limit, np.random.default_rng(0))
        plus = alds.alternated(more, limit, np.random.default_rng(0))
        assert epsilon(more, plus) <= epsilon(layers, plain) * (1 + 1e-6)


def test_cepd_gives_trains_and_filters_the_same_share_of_every_layer(lenet):
    surveys, _ = lenet
    layers = [cepd.layer_of([entry.site], "size") for entry in surveys]
    limit = 0.5 * sum(layer.dense for layer in layers)
    chosen = cepd.uniform(layers, limit)
    assert 0.9 * limit <= sum(cost for _, cost in chosen) <= limit
    for layer, (form, cost) in zip(layers, chosen, strict=True):
        assert isinstance(form, Sum)
        site = layer.users[0]
        assert isinstance(form.parts[1], Filters)
        halves = [kernel_weights(p.kernels(site.shape, site.geometry)) for p in form.parts]
        assert sum(halves) == cost
        if site.weights > 10_000:  # of small layers the steps are coarse
            assert max(halves) < 0.27 * site.weights
            assert min(halves) > 0.2 * site.weights


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """All baselines on lenet5 at half its weights, twice."""
    folder = tmp_path_factory.mktemp("recipes")
    images = np.random.default_rng(0).random((8, 1, 28, 28)).astype(np.float32)
    np.savez(folder / "images.npz", x=images)
    options = CompileOptions(size=0.5, calib=str(folder / "images.npz"))
    profile = load("raspberry-pi-5")
    path = ref_model("lenet5")
    return [
        compared(path, profile, options, WITHOUT_OURS, folder=folder / str(at))
        for at in range(2)
    ]


def stored(path):
    """Weights of the layers in a file, biases and tables left out."""
    graph = onnx.load(path).graph
    cast = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    read = {
        cast.get(name, name)
        for node in graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul")
        for name in node.input[:2]
    }
    return sum(numpy_helper.to_array(t).size for t in graph.initializer if t.name in read)


@pytest.mark.parametrize("name", WITHOUT_OURS)
def test_no_baseline_exceeds_its_budget_in_the_file(built, name):
    row = next(row for row in built[0].rows if row.recipe == name)
    assert row.is_met and row.changed
    reached = stored(row.model) / stored(ref_model("lenet5"))
    assert reached <= 0.5
    assert reached == pytest.approx(row.reached, abs=1e-3)


@pytest.mark.parametrize("name", WITHOUT_OURS)
def test_a_baseline_compiles_to_the_same_bytes_twice(built, name):
    first, second = (
        next(row for row in found.rows if row.recipe == name).model.read_bytes()
        for found in built
    )
    assert first == second


def test_every_baseline_is_a_recipe():
    assert set(BASELINES) <= set(get_args(Recipe))


@pytest.mark.parametrize(("name", "flag"), [("svd", "bits"), ("alds", "speedup")])
def test_a_baseline_is_held_to_weights_or_multiplications_alone(name, flag):
    with pytest.raises(UsageError, match=f"cannot be held to --{flag}"):
        check_budget(CompileOptions(recipe=name, **{flag: 3}))


@pytest.mark.parametrize("name", ["pca", "pfp"])
def test_a_baseline_that_needs_samples_is_refused_before_any_work(name, tmp_path, capsys):
    words = ["compile", str(tmp_path / "not-even-there.onnx"), "-t", "raspberry-pi-5"]
    assert main([*words, "--recipe", name, "--macs", "0.5", "-o", str(tmp_path / "b")]) == 2
    said = capsys.readouterr().err
    assert f"--recipe {name}" in said and "--calib FILE.npz" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "is_seen"), [("pfp", True), ("pca", True), ("ft", False)])
def test_what_looks_at_samples_is_not_called_uncalibrated(name, is_seen, tmp_path, capsys):
    """PFP chooses by what it sees, PCA fits to it; FT looks at weights alone, as published."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.random((24, 1, 28, 28), dtype=np.float32))
    words = ["compile", str(ref_model("lenet5")), "-t", "raspberry-pi-5", "--macs", "0.6"]
    more = ["--calib", str(tmp_path / "x.npz"), "-o", str(tmp_path / "b")]
    assert main([*words, "--recipe", name, *more]) == 0
    shown = capsys.readouterr().out
    assert ("UNCALIBRATED" not in shown) == is_seen
    assert ("left undone: fits" not in shown) == is_seen
    assert "without --calib" not in shown
    written = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert written["calibrated"] == is_seen


def test_a_baseline_that_needs_samples_says_so():
    found = compared(
        ref_model("lenet5"), load("raspberry-pi-5"), CompileOptions(macs=0.5), ("pca", "svd")
    )
    assert "--calib" in found.rows[0].note and not found.rows[0].is_met
    assert found.rows[1].is_met and found.exit_code == 0
