"""CEPD's comparisons of decompositions, on layers of trained nets (its tables 5-9 in form).

    pytest tests/bench/test_cepd.py -s                    (minutes)

Errors are ‖W − Ŵ‖_F / ‖W‖_F and sizes are counts of weights, as in the paper (appendix D), so
that no calibration enters. Each scheme takes its best split of the budget from the same grid.

L+S is a sum fitted by the product; S(L) is a low-rank fit whose factors are then pruned and
not refitted; L(S) a pruned weight that is then taken apart. S is pointwise (`Prune`) in one
table and whole filters, as the paper has it, in the other: for filters L+S and both sequences
are written out in `cepd.py`. Every grid holds the split without any S, so that schemes tie
where S does not help: the notes count wins and ties apart. The paper's counts leave out the
positions of S; further columns pay for them, and take the sum that the recipe finds.

Held to the bars are means over the layers of a net. What does not hold on every layer:
- pointwise, L+S is below L(S) on 41 of 41 layers, and below S(L) on 39: the factors of one
  layer of pp-ocr-cls and one of silero-vad are sparse themselves;
- with whole filters as S the schemes tie, or L+S loses a little, on most layers;
- trains of three cores and Tucker-2 are one set of weights, so that those always tie, and
  some lose to the SVD. "TT, any cut" is the best train over inputs | kernel axes | outputs,
  full ranks merged away (two cores or three): never above the SVD, nor above Tucker-2.
"""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from bars import Bar, check, print_table
from cepd import (
    filters_of_low_rank,
    filters_sum,
    filters_sum_apart,
    low_rank_of_filters,
    low_rank_of_pointwise,
    pointwise_of_low_rank,
    pointwise_of_low_rank_paid,
    pointwise_sum,
    recipe_paid,
    reshaped_train,
    svd,
    three_cores,
    trained,
)
from nncc.passes.forms.factors.tucker import Tucker2
from nncc.passes.forms.trains.tensor_train import TensorTrain

NETS = ("lenet5", "vggs", "pp-ocr-rec", "pp-ocr-cls", "magika", "silero-vad", "mtcnn-onet")
RATIO = 3.0
RATIOS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
TIE = 1e-4
"""Relative difference of two errors that says nothing: factors have 16 bits."""


def record(ratios: Sequence[float]) -> str:
    """How often a ratio of errors is below, at and above 1."""
    won = sum(ratio < 1 - TIE for ratio in ratios)
    lost = sum(ratio > 1 + TIE for ratio in ratios)
    return f"{won} won, {len(ratios) - won - lost} tied, {lost} lost"


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("kind", ["pointwise", "filters"])
def test_low_rank_plus_sparse_is_closer_than_either_after_the_other(net, kind, tmp_path):
    """CEPD, tables 5-7: ratio 3, every layer."""
    schemes = {
        "pointwise": (
            pointwise_sum,
            pointwise_of_low_rank,
            low_rank_of_pointwise,
            recipe_paid,
            pointwise_of_low_rank_paid,
        ),
        "filters": (
            filters_sum,
            filters_of_low_rank,
            low_rank_of_filters,
            filters_sum_apart,
        ),
    }[kind]
    rows: list[tuple[str, ...]] = []
    errors: list[list[float]] = []
    for layer in trained(net, tmp_path):
        budget = int(layer.W.size / RATIO)
        if budget < 2 * sum(layer.matrix.shape):
            continue
        found = [scheme(layer, budget) for scheme in schemes]
        errors.append(found)
        rows.append((layer.label, *(f"{error:.4f}" for error in found)))
    if not rows:
        pytest.skip(f"{net} has no layer that ratio {RATIO} leaves a rank of 2 for")
    more = {"pointwise": ("recipe, paid", "S(L), paid"), "filters": ("L+S, rows apart",)}
    head = ("", "L+S", "S(L)", "L(S)", *more[kind])
    print_table(f"Relative error at ratio {RATIO}, S {kind}", head, rows)
    table = np.array(errors)
    pairs = [(0, 1, "L+S / S(L)"), (0, 2, "L+S / L(S)")]
    if kind == "pointwise":
        pairs += [(3, 4, "recipe / S(L), both paid"), (3, 2, "recipe, paid / L(S)")]
    else:
        pairs += [(3, 1, "L+S, rows apart / S(L)"), (3, 2, "L+S, rows apart / L(S)")]
    bars: list[Bar] = []
    for at, other, what in pairs:
        ratios = table[:, at] / table[:, other]
        mean = float(ratios.mean())
        note = f"{record(ratios)}; worst layer {float(ratios.max()):.4f}"
        bars.append(Bar(f"{what}, mean", mean, 1.0, note=note))
    if kind == "pointwise":
        check(f"{net}: error of the sum over that of a sequence", bars)
    else:  # no bar: whole filters help few layers
        notes = [(bar.what, f"{bar.measured:.4f}", bar.note) for bar in bars]
        print_table(f"{net}: error of the sum over that of a sequence", ("",) * 3, notes)


@pytest.mark.parametrize("net", ["lenet5", "vggs", "pp-ocr-rec", "silero-vad", "mtcnn-onet"])
def test_trains_are_closer_than_svd_and_at_or_below_tucker_2(net, tmp_path):
    """CEPD, tables 8 and 9: equal numbers of weights, ratios 1.5 to 4."""
    head = ("", "ratio", "SVD", "Tucker-2", "TT", "TT, any cut", "TT reshaped")
    rows: list[tuple[str, ...]] = []
    errors: list[list[float]] = []
    for layer in trained(net, tmp_path):
        if math.prod(layer.W.shape[3:]) < 2:
            continue
        schemes = (0, 3) if layer.W.ndim == 4 else (0, 1, 2, 3)
        for ratio in RATIOS:
            budget = int(layer.W.size / ratio)
            three = three_cores(layer, budget, lambda r1, r2: TensorTrain((r1, r2)))
            found = [
                svd(layer, budget, (0,)),
                three_cores(layer, budget, lambda r1, r2: Tucker2(r2, r1)),
                three,
                min(three, svd(layer, budget, schemes)),
                reshaped_train(layer, budget),
            ]
            errors.append(found)
            rows.append((layer.label, f"{ratio}", *(f"{error:.4f}" for error in found)))
    if not rows:
        pytest.skip(f"{net} has no convolution with a kernel")
    print_table("Relative error at equal numbers of weights", head, rows)
    table = np.array(errors)
    bars: list[Bar] = []
    for at, what in ((2, "TT"), (3, "TT, any cut")):
        for other, name in ((0, "SVD"), (1, "Tucker-2")):
            ratios = table[:, at] / table[:, other]
            limit = 1.0 + (1e-6 if other else 0.0)
            note = record(ratios)
            bars.append(Bar(f"{what} / {name}, mean", float(ratios.mean()), limit, note=note))
            if at == 3:
                worst = float(ratios.max())
                bars.append(Bar(f"{what} / {name}, worst layer", worst, 1.0 + TIE))
    ratios = table[:, 3] / table[:, 4]
    print(f"  TT, any cut / TT reshaped: {ratios.mean():.4f}, {record(ratios)}")
    check(f"{net}: error of trains over that of others", bars)
