"""Quantised fits: processor time beside scikit-learn's, and what each step of a fit earns."""

import time

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from bars import Bar, check, conditions, print_table
from nncc.passes.forms import Metric, squared_error
from nncc.passes.forms.codes.affine import Affine
from nncc.passes.forms.codes.feedback import descended, fed_back, ordered
from nncc.passes.forms.codes.kmeans import kmeans, nearest
from nncc.passes.forms.codes.quantize import Quantize

RATIOS = ((2, 15.0), (4, 30.0), (16, 80.0))
"""Levels, and how much less processor time than ten restarts of scikit-learn's."""


def timed(work):
    """What `work` returns and the processor seconds it took, on one thread."""
    with threadpool_limits(1):
        began = time.process_time()
        result = work()
        return result, time.process_time() - began


def test_k_means_beside_scikit_learn():
    """Ten restarts of k-means++ and Lloyd, the usual way to a good optimum: half a minute.

    The bars on time guard against regressions: about half of what was first measured.
    """
    cluster = pytest.importorskip("sklearn.cluster")
    x = np.random.default_rng(0).standard_normal((512, 4608)).astype(np.float32)
    print(f"\n{conditions()}")
    bars = []
    for k, least in RATIOS:
        one = cluster.KMeans(k, n_init=1, random_state=0)
        ten = cluster.KMeans(k, n_init=10, random_state=0)
        ours, mine = timed(lambda k=k: kmeans(x, k))
        _, codes = timed(lambda c=ours: nearest(x, c.centres.astype(np.float32)))
        _, single = timed(lambda o=one: o.fit(x.reshape(-1, 1)))
        _, theirs = timed(lambda o=ten: o.fit(x.reshape(-1, 1)))
        centres = np.sort(ten.cluster_centers_.ravel()).astype(np.float32)
        residual = x - centres[nearest(x, centres)]
        error = float(np.vdot(residual.astype(np.float64), residual))
        mine += codes
        note = f"{mine:.2f} s against {theirs:.2f} s (one run {single:.2f} s)"
        bars += [
            Bar(f"k={k}: processor time, theirs / ours", theirs / mine, least, True, note),
            Bar(f"k={k}: error, ours / theirs", ours.error / error, 1 + 1e-6),
            Bar(f"k={k}: stated gap / error", ours.gap / ours.error, 1e-3),
        ]
    check("k-means of 512 × 4608 weights", bars)


def test_a_large_layer():
    W = np.random.default_rng(0).standard_normal((1, 4096, 9216)).astype(np.float32)
    print(f"\n{conditions()}")
    bars = []
    for form, limit in (
        (Quantize(2), 2.0),
        (Quantize(16), 4.0),
        (Quantize(8, scale="row"), 8.0),
        (Affine(4), 8.0),
    ):
        _, seconds = timed(lambda form=form: form.compress(W))
        bars.append(Bar(f"{form}: processor seconds", seconds, limit))
    check("plain fits of 4096 × 9216 weights", bars)


def test_what_each_step_earns_in_the_metric():
    rng = np.random.default_rng(0)
    rows, bars = [], []
    for m, n, samples in ((120, 480, 2000), (240, 480, 400), (512, 1152, 3000)):
        W = rng.standard_normal((1, m, n)) * rng.lognormal(0, 0.5, (1, m, 1))
        W = W.astype(np.float32)
        mixing = rng.standard_normal((n, n)) * np.exp(-4 * np.arange(n) / n)
        x = np.maximum(rng.standard_normal((samples, n)) @ mixing.T / np.sqrt(n) + 0.3, 0)
        x -= x.mean(axis=0)
        metric = Metric((x.T @ x / samples)[None])
        order = ordered(metric.damped(0.01).H)
        w = W[0].astype(np.float64)
        for form in (Quantize(4, scale="row"), Quantize(8, scale="row"), Affine(3)):
            levels = form.levels(W[0], None)

            def error(codes, levels=levels, W=W, metric=metric):
                return metric.squared(W - levels.values(codes)[None])

            rounded = error(levels.nearest(W[0]))
            rounding = fed_back(w, levels, order)
            gptq = error(rounding.codes)
            descent = error(descended(rounding, levels, order, 2).codes)
            term, seconds = timed(lambda f=form, W=W, h=metric: f.compress(W, None, h))
            whole = squared_error(W, term, metric)
            shares = [part / rounded for part in (gptq, descent, whole)]
            rows.append((f"{m} × {n} {form}", *(f"{s:.4f}" for s in shares), f"{seconds:.1f}"))
            bars.append(Bar(f"{m} × {n} {form}: whole fit / GPTQ", whole / gptq, 0.98))
    print_table(
        "output error, rounding = 1",
        ("", "GPTQ", "and descent", "whole fit", "seconds"),
        rows,
    )
    check("what alternation earns beyond error feedback", bars)
