"""Packed products: 4-bit weights multiplied as they are, against the dense product in float32.

    pytest tests/bench/test_packed.py -s                     (a minute)

Through the compile's own pipeline, for this machine. A layer that is packed is never slower
than the dense one, and exact; the smaller ones, where it would be, are folded. For x86.
"""

from pathlib import Path
from statistics import median

import numpy as np
import onnx
import pytest

from bars import Bar, check, conditions
from layers import product
from nncc.compiler.options import CompileOptions
from nncc.compiler.pipeline import compile as compiled
from nncc.device_profiles.registry import load
from nncc.runtime.ab import alternate
from nncc.runtime.session import open_session

FORM = "affine(bits=4, per=channel, symmetric=1)"
ROUNDS, RUNS = 7, 40
FASTER = {
    (4096, 4096, 1): 1.3,
    (4096, 1024, 1): 1.3,
    (4096, 1024, 16): 1.0,
    (512, 512, 1): 1.0,
}
"""Inputs, outputs and rows: the least speed-up."""
FOLDED = [(512, 512, 16), (128, 256, 1)]
SLACK = 0.97
"""A ratio of two equal times is this far from 1."""


@pytest.mark.skipif(load("host").lowering.quantized != "u8s8", reason="measured on x86 alone")
def test_a_packed_product_is_faster_and_exact(tmp_path: Path) -> None:
    bars: list[Bar] = []
    for (n, m, rows), least in FASTER.items():
        layer = product(f"p{n}x{m}", m=m, n=n, rows=(rows,))
        original, small = made(layer, tmp_path / f"{n}x{m}x{rows}")
        ops = [node.op_type for node in onnx.load(small).graph.node]
        assert ops == ["MatMulNBits"]
        before, after = alternate([original, small], layer.feeds, rounds=ROUNDS, runs=RUNS)
        ratios = [old / new for old, new in zip(before, after, strict=True)]
        bars.append(
            Bar(
                f"{n} × {m}, {rows} rows, times faster",
                median(ratios),
                least * SLACK,
                is_floor=True,
                note=f"{min(ratios):.2f} to {max(ratios):.2f}",
            )
        )
    check(f"{FORM}, one thread, {ROUNDS} rounds ({conditions()})", bars)


@pytest.mark.parametrize(("n", "m", "rows"), FOLDED)
def test_where_packing_would_be_slower_the_weight_is_folded(
    n, m, rows, tmp_path: Path
) -> None:
    layer = product(f"p{n}x{m}", m=m, n=n, rows=(rows,))
    _, small = made(layer, tmp_path / "folded")
    model = onnx.load(small)
    assert "MatMulNBits" not in {node.op_type for node in model.graph.node}
    (y,) = open_session(small).run(None, layer.feeds)
    assert np.isfinite(y).all()


def made(layer, folder: Path) -> tuple[Path, Path]:
    """The layer's file, and the one compiled of it."""
    folder.mkdir()
    original = folder / "original.onnx"
    model = onnx.ModelProto.FromString(layer.model.SerializeToString())
    y, x = model.graph.output[0].type.tensor_type, model.graph.input[0].type.tensor_type
    (W,) = model.graph.initializer
    m = W.dims[1]
    for size in (*(d.dim_value for d in x.shape.dim[:-1]), m):
        y.shape.dim.add().dim_value = size
    onnx.save(model, original)
    options = CompileOptions(form=(FORM,), output=folder / "build", measure=False)
    compiled(original, "host", options)
    return original, folder / "build" / "model.onnx"
