"""TT-SVD costs less than half of TensorLy's CPU time at the same error.

    pytest tests/bench/test_tensor_train.py -s                          (a minute)

Both sides in this process, in turns, one BLAS thread, process CPU time. Ours is `tt_svd` on
the same float64 tensor; the error of both is compared to 1e-9.
"""

import math
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bars import Bar, check, conditions
from models import ref_model, wheel_model
from nncc.compiler.reading.ingest import ingest
from nncc.passes.forms.trains.tensor_train_svd import multiplied, tt_svd
from nncc.passes.forms.trains.tt_matrix_modes import modes_of
from nncc.passes.normalise import normalise
from nncc.passes.sites import find_sites

Tensor = NDArray[np.float64]

TURNS = 5
LEAST_RATIO = 2.0
CLOSE = 1e-9
SMALL = 20_000
"""Weights below which the time is that of a few calls, not of any arithmetic."""
LARGE = 2_000_000


def decaying(outputs: int, inputs: int, kernel: int) -> Tensor:
    """U diag(i^-0.7) Vᵀ with random orthonormal U and V: (outputs, inputs, kernel)."""
    rng = np.random.default_rng(0)
    U, _ = np.linalg.qr(rng.standard_normal((outputs, outputs)))
    V, _ = np.linalg.qr(rng.standard_normal((inputs * kernel, outputs)))
    W = (U * np.arange(1, outputs + 1) ** -0.7) @ V.T
    return W.astype(np.float64).reshape(outputs, inputs, kernel)


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def compared(tensor: Tensor, ranks: tuple[int, ...]) -> tuple[list[float], float]:
    """TensorLy's time over ours, turn by turn, and the relative difference of the errors."""
    import tensorly
    from tensorly.decomposition import tensor_train

    wanted = [1, *ranks, 1]
    errors = (
        float(np.linalg.norm(tensor - tensorly.tt_to_tensor(tensor_train(tensor, wanted)))),
        float(np.linalg.norm(tensor - multiplied(tt_svd(tensor, ranks)))),
    )
    ratios: list[float] = []
    for _ in range(TURNS):
        theirs = cpu_seconds(lambda: tensor_train(tensor, wanted))
        ratios.append(theirs / cpu_seconds(lambda: tt_svd(tensor, ranks)))
    return ratios, abs(errors[0] - errors[1]) / errors[0]


def bars(what: str, ratios: list[float], apart: float) -> list[Bar]:
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return [
        Bar(f"{what}, TensorLy's CPU over ours", median(ratios), LEAST_RATIO, True, spread),
        Bar(f"{what}, errors apart, relative", apart, CLOSE),
    ]


def test_the_decaying_layer_takes_less_than_half_of_tensorlys_time():
    pytest.importorskip("tensorly")
    W = decaying(256, 256, 9)
    three = np.ascontiguousarray(W.transpose(0, 2, 1))
    reversed_ = np.ascontiguousarray(W.transpose(1, 2, 0))
    reshaped = modes_of((1, 256, 256, 9), 2).tensor(W)
    deeper = modes_of((1, 256, 256, 9), 4).tensor(W)
    found: list[Bar] = []
    with threadpool_limits(1, user_api="blas"):
        for what, tensor, ranks in (
            ("outputs | kernel | inputs", three, (64, 64)),
            ("inputs | kernel | outputs", reversed_, (64, 64)),
            ("(K·K) × (O₁I₁) × (O₂I₂)", reshaped, (8, 64)),
            ("(K·K) × (O₁I₁) × … × (O₄I₄)", deeper, (8, 32, 64, 16)),
        ):
            found += bars(what, *compared(tensor, ranks))
    check(f"TT-SVD of 256×256×3×3, {TURNS} turns ({conditions()})", found)


@pytest.mark.parametrize("net", ["vggs", "lenet5", "pp-ocr-rec", "silero-vad"])
def test_trained_convolutions_take_less_than_half_of_tensorlys_time(net, tmp_path):
    """Trains inputs | kernel | outputs; of one matrix, cut once, the ratio is only printed.

    A train of two cores is one truncated singular value decomposition: of a square matrix its
    Gram matrix saves less than half.
    """
    pytest.importorskip("tensorly")
    path = ref_model(net) if net in ("lenet5", "vggs") else wheel_model(net)
    sites, _ = find_sites(normalise(ingest(path, workdir=tmp_path)))
    ratios: dict[bool, list[float]] = {True: [], False: []}
    apart = 0.0
    with threadpool_limits(1, user_api="blas"):
        for site in sites:
            if site.shape[0] != 1 or site.weights < SMALL or site.weights > LARGE:
                continue
            m, c, *kernel = site.shape[1:]
            W = site.W()[0].reshape(m, c, -1).astype(np.float64)
            has_kernel = math.prod(kernel) > 1
            tensor = np.ascontiguousarray(W.transpose(1, 2, 0) if has_kernel else W[:, :, 0])
            sizes = tensor.shape
            ranks = tuple(
                max(min(math.prod(sizes[:at]), math.prod(sizes[at:])) // 3, 1)
                for at in range(1, len(sizes))
            )
            found, difference = compared(tensor, ranks)
            ratios[has_kernel].append(median(found))
            apart = max(apart, difference)
    if ratios[False]:
        spread = f"{len(ratios[False])} layers, median {median(ratios[False]):.2f}"
        print(f"\n  {net}, one matrix cut once: TensorLy's CPU over ours, {spread}")
    if not ratios[True]:
        pytest.skip(f"{net} has no dense convolution of {SMALL:,} weights or more")
    spread = f"{len(ratios[True])} layers, {min(ratios[True]):.2f} to {max(ratios[True]):.2f}"
    check(
        f"TT-SVD of trained layers, {net} ({conditions()})",
        [
            Bar(
                "TensorLy's CPU over ours, median",
                median(ratios[True]),
                LEAST_RATIO,
                True,
                spread,
            ),
            Bar("errors apart, relative, largest", apart, CLOSE),
        ],
    )
