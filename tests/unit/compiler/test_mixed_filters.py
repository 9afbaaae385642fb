"""Filters go where one layer alone reads them, and what they are said to save is saved."""

import itertools
import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_models
from nncc.compiler.allocation.mixed_filters import Credits, Savings, column_forms, ties
from nncc.compiler.allocation.mixed_limits import limits
from nncc.compiler.allocation.mixed_plan import mixed_layers, mixed_plan, solved
from nncc.compiler.allocation.mixed_row import Candidate, MixedRow, dense_candidate
from nncc.compiler.allocation.planned import Planned
from nncc.compiler.allocation.recipes import fits_in_its_way
from nncc.compiler.allocation.solve_table import totals
from nncc.compiler.build import assembled, moments_of
from nncc.compiler.clock import Clock
from nncc.compiler.costs import costs, predicted
from nncc.compiler.keeping.stored import layer_rows, stored
from nncc.compiler.options import CompileOptions
from nncc.compiler.prepare import prepared, value_names
from nncc.compiler.work import Work
from nncc.device_profiles.registry import load
from nncc.passes.forms import Columns, Dense, LowRank, Quantize, kernel_macs
from nncc.passes.fusion import fused_kernels
from nncc.passes.model import Model
from nncc.passes.plan import Plan
from nncc.passes.rewrite import compress_weights
from nncc.passes.sites import find_sites
from nncc.runtime.probe import probe

PI = load("raspberry-pi-5")
CHAIN = """
chain (float[1, 3, 12, 12] x) => (float[1, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, A, p)
    r = Relu (a)
    d = Conv <pads = [1, 1, 1, 1], group = 24> (r, D)
    m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
    b = Conv (m, B, q)
    s = Relu (b)
    c = Conv (s, C)
    g = GlobalAveragePool (c)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, E)
}
"""
SIZES = {
    "A": (24, 3, 3, 3), "p": (24,), "D": (24, 1, 3, 3), "B": (32, 24, 3, 3), "q": (32,),
    "C": (16, 32, 1, 1), "E": (5, 16),
}  # fmt: skip


def drawn(seed=0, **sizes):
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(size) / np.sqrt(np.prod(size[1:]))).astype(np.float32)
        for name, size in sizes.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    small_models.write(folder / "net.onnx", CHAIN, **drawn(**SIZES))
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((3, 3))
    x = np.einsum("ij,njhw->nihw", mixing, rng.standard_normal((24, 3, 12, 12)))
    np.savez(folder / "samples.npz", x=x.astype(np.float32))
    return folder


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def options(folder):
    return CompileOptions(calib=str(folder / "samples.npz"), jobs=1, macs=0.5)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return Work(tmp_path_factory.mktemp("work"), False)


@pytest.fixture(scope="module")
def ready(folder, options):
    return prepared(folder / "net.onnx", PI, options, Work(folder, False), None, Clock())


@pytest.fixture(scope="module")
def moments(ready, options, work):
    return moments_of(ready, options, work, Clock())


@pytest.fixture(scope="module")
def found(ready):
    return costs(ready.model, ready.shapes, ready.sites, PI)


@pytest.fixture(scope="module")
def layers(ready, moments, found, options):
    return mixed_layers(ready, moments, found, PI, options, Clock())


def sites_of(sites):
    return {site.name: site for site in sites}


def model_of(text, **tensors):
    header = '<ir_version: 8, opset_import: ["" : 17]>'
    proto = onnx.parser.parse_model(f"{header} {text}")
    for name, array in tensors.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node in proto.graph.node:
        node.name = node.output[0]
    return Model(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), "net", "0" * 64)


def test_a_layer_is_tied_to_the_one_maker_of_what_it_alone_reads(ready):
    found = ties(ready.model, ready.sites)
    by_op = {tie.reader: (tie.maker, tie.channels) for tie in found.values()}
    assert by_op == {
        "Conv_4": ("Conv_0", 24), "Conv_6": ("Conv_4", 32), "Gemm_9": ("Conv_6", 16),
    }  # fmt: skip
    assert set(found["Conv_4"].passed) == {"Relu_1", "Conv_2", "MaxPool_3"}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a = Conv (x, A) b = Conv (x, B) s = Add (a, b) y = Conv (s, C)", "a sum"),
        ("a = Conv (x, A) b = Conv (a, C) c = Conv (a, C2) y = Add (b, c)", "two readers"),
        ("a = Conv (x, A) b = Softmax <axis = 1> (a) y = Conv (b, C)", "mixes channels"),
        (
            "a = Conv (x, A) b = Conv (x, B) s = Concat <axis = 1> (a, b) y = Conv (s, W)",
            "join",
        ),
    ],
)
def test_channels_with_others_around_them_are_left_alone(body, why):
    tensors = drawn(A=(8, 3, 1, 1), B=(8, 3, 1, 1), C=(4, 8, 1, 1), C2=(4, 8, 1, 1),
                    W=(4, 16, 1, 1))  # fmt: skip
    used = {name: array for name, array in tensors.items() if f", {name})" in body}
    model = model_of(
        f"net (float[1, 3, 6, 6] x) => (float[1, 4, 6, 6] y) {{ {body} }}", **used
    )
    assert not ties(model, find_sites(model)[0]), why


def test_features_of_a_flattened_image_are_left_alone():
    text = """net (float[1, 3, 4, 4] x) => (float[1, 5] y) {
        a = Conv (x, A) f = Flatten (a) y = Gemm <transB = 1> (f, E) }"""
    model = model_of(text, **drawn(A=(8, 3, 1, 1), E=(5, 128)))
    assert not ties(model, find_sites(model)[0])


@pytest.mark.parametrize(("target", "step"), [("jetson-nano", 8), ("host", 16)])
def test_columns_are_kept_on_the_step_of_the_device(ready, target, step):
    site = sites_of(ready.sites)["Conv_6"]
    assert load(target).lattice.rank == step
    kept = [form.keep for form in column_forms(site, step)]
    assert kept == list(range(step, 32, step))


@pytest.mark.parametrize(("channels", "count"), [(112, 6), (128, 3), (257, 0)])
def test_fewer_numbers_of_channels_are_tried_the_longer_they_take(channels, count):
    head = f"net (float[1, {channels}, 6, 6] x) => (float[1, 2, 4, 4] y)"
    model = model_of(f"{head} {{ y = Conv (x, W) }}", **drawn(W=(2, channels, 3, 3)))
    (site,) = find_sites(model)[0]
    assert len(column_forms(site, 8)) == count


def test_filters_compete_with_the_error_and_the_bits_of_their_terms(layers):
    drafted = {
        layer.site.name: [c for c in layer.row.candidates if c.family == "filters"]
        for layer in layers
    }
    assert [c.form for c in drafted["Conv_4"]] == [Columns(8), Columns(16)]
    assert not drafted["Conv_0"] and not drafted["Conv_2"]
    assert all(c.is_fitted for found in drafted.values() for c in found)
    errors = [c.error for c in drafted["Conv_6"]]
    assert errors == sorted(errors, reverse=True)


def counted(model):
    """Weights and multiply-adds of every product in an emitted graph, from its own shapes."""
    proto = onnx.shape_inference.infer_shapes(
        onnx.ModelProto.FromString(ir.to_proto(model.graph_model).SerializeToString())
    )
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*proto.graph.value_info, *proto.graph.output)
    }
    shapes |= {t.name: list(t.dims) for t in proto.graph.initializer}
    weights = macs = 0
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            size, out = math.prod(shapes[node.input[1]]), shapes[node.output[0]]
            weights += size
            macs += size * math.prod(out[2:])
    return weights, macs


@given(st.integers(0, 2**32 - 1))
def test_no_plan_takes_more_than_it_was_priced_at(seed):
    """Random chains, random plans of columns and low rank: whatever the credits rest on."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(2, 5))
    widths = [int(w) for w in rng.integers(3, 12, depth + 1)]
    body, tensors, last = "", {}, "x"
    for i, (c, m) in enumerate(itertools.pairwise(widths)):
        kernel = int(rng.choice([1, 3]))
        pads = [kernel // 2] * 4
        tensors[f"W{i}"] = rng.standard_normal((m, c, kernel, kernel)).astype(np.float32)
        body += f"c{i} = Conv <pads = {pads}> ({last}, W{i})\n"
        last = f"c{i}"
        if i < depth - 1:
            body += f"r{i} = Relu ({last})\n"
            last = f"r{i}"
            if rng.random() < 0.4:
                tensors[f"D{i}"] = rng.standard_normal((m, 1, 1, 1)).astype(np.float32)
                body += f"d{i} = Conv <group = {m}> ({last}, D{i})\n"
                last = f"d{i}"
    body = body.replace(f"c{depth - 1} =", "y =")
    head = f"net (float[1, {widths[0]}, 6, 6] x) => (float[1, {widths[-1]}, 6, 6] y)"
    model = model_of(f"{head} {{ {body} }}", **tensors)
    sites = find_sites(model, {v: tuple(s) for v, s in _shapes(model).items()})[0]
    by_name = sites_of(sites)
    tied = ties(model, sites)
    rows = []
    for site in sites:
        forms = [Dense()]
        if site.shape[0] == 1:
            most = min(site.shape[1], math.prod(site.shape[2:]))
            forms += [LowRank(j) for j in range(1, most, 2)]
        if site.name in tied:
            forms += [Columns(k) for k in range(1, site.shape[2])]
        made = [_candidate(site, form) for form in forms]
        rows.append(MixedRow(site.name, tuple(made), site.weights))
    credit = Credits(rows, tied, Savings(by_name, None), ("macs", "bits"))
    choice = [int(rng.integers(len(row.candidates))) for row in rows]
    other = [int(rng.integers(len(row.candidates))) for row in rows]
    plan = Plan({r.site: r.candidates[i].form for r, i in zip(rows, choice, strict=True)})
    terms = {name: plan.form(name).compress(by_name[name].W()) for name in plan.changed}
    weights, macs = counted(compress_weights(model, plan, terms))

    exact = totals(credit.at(choice), choice, {})
    assert exact["macs"] == pytest.approx(macs)
    for table in (credit.least(), credit.at(other)):
        promised = totals(table, choice, {})
        assert promised["macs"] >= macs - 1e-6
        assert promised["bits"] >= 16 * weights - 1e-6
    assert totals(credit.most(), choice, {})["macs"] <= macs + 1e-6


def _shapes(model):
    proto = ir.to_proto(model.graph_model)
    values = (*proto.graph.value_info, *proto.graph.output, *proto.graph.input)
    return {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def _candidate(site, form):
    kernels = form.kernels(site.shape, site.geometry)
    bits = 16.0 * sum(kernel.weights for kernel in kernels)
    family = "filters" if isinstance(form, Columns) else "low-rank"
    if isinstance(form, Dense):
        return dense_candidate(2 * bits, float(kernel_macs(kernels)), 0.0)
    return Candidate(form, family, 0.1, bits, float(kernel_macs(kernels)))


def test_a_maker_that_is_unfolded_at_load_saves_nothing_and_costs_a_launch(ready, found):
    savings = Savings(sites_of(ready.sites), found)
    tie = ties(ready.model, ready.sites)["Conv_6"]
    coded = Candidate(Quantize(4), "codes", 0.1, 1.0, 1.0)
    saved = savings.of(tie, coded, 16)
    assert (saved["macs"], saved["bits"]) == (0, 0)
    assert saved["seconds"] < 0


def test_the_best_plan_is_found_where_layers_save_around_them(ready, layers, found, options):
    """Against every combination of some candidates of each layer, at what they really cost."""
    few = []
    for layer in layers:
        filters = [c for c in layer.row.candidates if c.family == "filters"]
        others = [c for c in layer.row.candidates[1:] if c.family == "low-rank"]
        kept = (layer.row.dense, *filters[:2], *others[:2])
        few.append(replace(layer, row=layer.row.with_candidates(kept), bases={}))
    asked = limits(ready, [layer.row for layer in few], options, PI, found)
    savings = Savings(sites_of(ready.sites), found)
    tied = {layer.site.name: layer.tie for layer in few if layer.tie is not None}
    rows = [layer.row for layer in few]
    credit = Credits(rows, tied, savings, ("macs",))
    values = [row.divergences() for row in rows]
    best = min(
        sum(v[i] for v, i in zip(values, choice, strict=True))
        for choice in itertools.product(*(range(len(row.candidates)) for row in rows))
        if totals(credit.at(choice), choice, {})["macs"] <= asked[0].most
    )
    choice = solved(few, asked, savings)
    assert choice.refused is None
    assert choice.solved.costs["macs"] <= asked[0].most
    assert choice.solved.bound <= best * (1 + 1e-9)
    assert choice.solved.value == pytest.approx(best)


@pytest.fixture(scope="module")
def built(ready, moments, options, work):
    """Columns behind a layer of low rank, behind a depthwise one, and of a product."""
    plan = Plan(
        {
            "Conv_4": Columns(8),
            "Conv_6": Columns(16),
            "Gemm_9": Columns(8),
            "Conv_0": LowRank(8),
        }
    )
    fitted = fits_in_its_way(ready, plan, moments, options, Clock())
    return assembled(ready, Planned(plan, {}), fitted, PI, options, work, Clock())


def test_the_rows_are_those_of_the_file(ready, built):
    rows = {row.name: row for row in layer_rows(ready, built)}
    weights = {name: row.weights_compressed for name, row in rows.items()}
    assert weights == {
        "Conv_0": 8 * 27 + 8 * 8, "Conv_2": 8 * 9, "Conv_4": 16 * 8 * 9, "Conv_6": 8 * 16,
        "Gemm_9": 5 * 8,
    }  # fmt: skip
    assert rows["Conv_0"].macs_compressed == 144 * weights["Conv_0"]
    assert rows["Conv_2"].bits_compressed == 32 * weights["Conv_2"]
    assert rows["Conv_0"].bits_compressed == 16 * weights["Conv_0"]
    assert rows["Conv_2"].status == "dense"
    assert "16 of its 24 filters are gone" in rows["Conv_2"].reason


def test_the_predicted_time_is_that_of_the_launches_of_the_file(ready, built, found):
    shapes = probe(built.compiled, ready.feeds[0], value_names(built.model))
    launches = fused_kernels(
        built.model, shapes, PI.runtime, find_sites(built.model, shapes)[0]
    )
    seconds = sum(found.model.predict(k).seconds for k in launches if k.op != "Cast")
    told = predicted(found, ready.sites, built.plan.plan, built.left)
    assert told.compressed_ms == pytest.approx(1e3 * seconds, rel=0.02)
    assert told.compressed_ms < predicted(found, ready.sites, built.plan.plan).compressed_ms


def test_a_layer_that_goes_back_brings_its_filters_back(ready, built, options, work):
    forms = {n: f for n, f in built.plan.plan.forms.items() if n != "Conv_4"}
    fitted = {name: fit for name, fit in built.fitted.items() if name in forms}
    again = assembled(ready, Planned(Plan(forms), {}), fitted, PI, options, work, Clock())
    before, after = stored(ready, built, options), stored(ready, again, options)
    assert again.left.made["Conv_4"] == (16, 32)
    assert not {"Conv_0", "Conv_2"} & set(again.left.made)
    # a budget of storage that allows it is held afterwards
    assert after.bits - before.bits <= before.more["Conv_4"] * (1 + 1e-9)


def test_a_budget_is_held_by_the_graph_that_filters_left(ready, moments, found, options, work):
    planned = mixed_plan(ready, moments, found, PI, options, Clock())
    assert planned.budget_met
    fitted = fits_in_its_way(ready, planned.plan, moments, options, Clock())
    done = assembled(ready, planned, fitted, PI, options, work, Clock())
    _, macs = counted(done.model)
    assert macs <= options.macs * sum(site.macs for site in ready.sites)
