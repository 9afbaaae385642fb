"""Synthetic inputs: random samples that the model runs on, for when no data is given.

Sizes come from --shape, else from the model; an axis that neither fixes is guessed, and the
guess is believed only when ONNX Runtime has run the model on it.
"""

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...device_profiles.errors import ShapeUnknown
from ...passes.constants import constant
from ...passes.model import Model
from ...runtime.session import open_session
from ..reading.shapes import describe, is_named
from ..writing.save import write
from .calibration import Feeds

logger = logging.getLogger(__name__)

Array = NDArray[Any]
Sizes = tuple[int, ...]

_GUESSES = (
    32,
    48,
    64,
    96,
    112,
    128,
    160,
    224,
    256,
    320,
    512,
    640,
    16,
    8,
    1,
    2,
    4,
    10,
    100,
    1000,
)
"""Sizes tried for an axis that nothing fixes, in this order."""
_WIDE = ((48, 320), (32, 100), (48, 192), (80, 100))
"""Height and width of text lines and spectrograms, which are not square."""
_RATES = (16000, 8000, 1, 0)
"""Numbers tried for a scalar integer: sampling rates, then a count."""
_BOUND = 8
"""Random integers stay below this where nothing says what they index."""
LARGEST_INPUT = 1 << 30  # bytes


def synthetic_inputs(
    model: Model, n: int, seed: int, *, path: Path | None = None
) -> list[Feeds]:
    """`n` samples of every input: floats N(0, 1), bytes 0..255, indices within their table.

    Args:
        model: the model; its `shapes` (the optimum of each) decide sizes where given.
        n: number of samples.
        seed: of the random numbers; the same seed gives the same samples.
        path: where the model is written already; None writes it to a temporary folder.

    Raises:
        ShapeUnknown: no guessed size runs; the hint shows --shape for the inputs concerned.
        ModelError: ONNX Runtime does not take the model at all.
    """
    if path is not None:
        return _run_guesses(model, n, seed, path)
    with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
        path = Path(folder) / "model.onnx"
        write(model, path)
        return _run_guesses(model, n, seed, path)


def _run_guesses(model: Model, n: int, seed: int, path: Path) -> list[Feeds]:
    session = open_session(path)
    said = ""
    for sizes, rate in _candidates(model):
        feeds = _sample(model, sizes, rate, np.random.default_rng(seed))
        try:
            session.run(None, feeds)
        except Exception as error:  # noqa: BLE001  (onnxruntime's classes share no other base)
            said = said or " ".join(str(error).split())
            logger.debug("sizes %s do not run: %s", sizes, error)
            continue
        generator = np.random.default_rng(seed)
        return [_sample(model, sizes, rate, generator) for _ in range(n)]
    raise ShapeUnknown(
        f"no size tried for its inputs runs ({_reason(said)})",
        where=model.name,
        hint=_hint(model),
    )


def _candidates(model: Model) -> Iterator[tuple[dict[str, Sizes], int]]:
    """Sizes of every input, most likely first, each with a value for integer scalars."""
    inputs = list(model.graph_model.graph.inputs)
    rates = _RATES if any(_is_scalar_integer(v) for v in inputs) else (0,)
    seen: set[tuple[Sizes, ...]] = set()
    for guess in _guesses():
        sizes = {str(v.name): _sizes(model, v, guess) for v in inputs}
        key = tuple(sizes.values())
        if key in seen:
            continue
        seen.add(key)
        for rate in rates:
            yield sizes, rate


def _guesses() -> Iterator[tuple[int, int]]:
    """(second to last, last) size for free axes that are not a batch."""
    yield from ((size, size) for size in _GUESSES[:2])
    yield from _WIDE
    yield from ((size, size) for size in _GUESSES[2:])


def _sizes(model: Model, value: ir.Value, guess: tuple[int, int]) -> Sizes:
    """Sizes of one input: asked for, fixed, bound by the name of an axis, or guessed."""
    asked = model.shapes.get(str(value.name))
    if asked is not None:
        return asked.optimum
    named = _named_sizes(model)
    shape = list(value.shape) if value.shape is not None else []
    sizes: list[int] = []
    for axis, size in enumerate(shape):
        if isinstance(size, int):
            sizes.append(size)
        elif is_named(size) and str(size.value) in named:
            sizes.append(named[str(size.value)])
        elif (
            axis == 0
            or _is_batch(size)
            or (axis == 1 and len(shape) >= 3 and _is_recurrent(shape))
        ):
            sizes.append(1)
        elif axis == 1 and len(shape) >= 4:
            sizes.append(3)
        else:
            sizes.append(guess[1] if axis == len(shape) - 1 else guess[0])
    if len(shape) == 4 and shape[3] == 3 and not isinstance(shape[1], int):
        sizes[1], sizes[2] = guess  # channels last
    return tuple(sizes)


def _named_sizes(model: Model) -> Mapping[str, int]:
    """Axis names to the sizes that --shape gives them."""
    found: dict[str, int] = {}
    for value in model.graph_model.graph.inputs:
        asked = model.shapes.get(str(value.name))
        for axis, size in enumerate(value.shape or ()):
            if asked is not None and isinstance(size, ir.SymbolicDim) and is_named(size):
                found[str(size.value)] = asked.optimum[axis]
    return found


def _is_batch(size: int | ir.SymbolicDim) -> bool:
    name = "" if isinstance(size, int) else str(size.value or "").lower()
    return "batch" in name or name in ("n", "b", "bs")


def _is_recurrent(shape: list[int | ir.SymbolicDim]) -> bool:
    """(layers, batch, features): fixed around a free middle."""
    return len(shape) == 3 and isinstance(shape[0], int) and isinstance(shape[2], int)


def _is_scalar_integer(value: ir.Value) -> bool:
    is_scalar = value.shape is not None and all(size == 1 for size in value.shape)
    return is_scalar and value.dtype is not None and value.dtype.is_integer()


def _sample(
    model: Model, sizes: Mapping[str, Sizes], rate: int, generator: np.random.Generator
) -> Feeds:
    return {
        str(value.name): _random(value, sizes[str(value.name)], rate, generator)
        for value in model.graph_model.graph.inputs
    }


def _random(value: ir.Value, sizes: Sizes, rate: int, generator: np.random.Generator) -> Array:
    kind = value.dtype
    name = str(value.name)
    if kind is None or not isinstance(value.type, ir.TensorType):
        raise ShapeUnknown(
            f"input '{name}' is no tensor, so no sample of it can be made",
            where="synthetic inputs",
            hint="give --calib",
        )
    bits = 64 if kind == ir.DataType.STRING else kind.bitwidth
    if math.prod(sizes) * bits // 8 > LARGEST_INPUT:
        raise ShapeUnknown(
            f"a sample of input '{name}' with sizes {list(sizes)} is over 1 GiB",
            where="synthetic inputs",
            hint=f"give --shape {name}:SIZES",
        )
    if kind == ir.DataType.STRING:
        return np.full(sizes, "a", dtype=object)
    if kind == ir.DataType.BOOL:
        return generator.integers(0, 2, sizes).astype(np.bool_)
    if kind.is_integer():
        if _is_scalar_integer(value):
            return np.full(sizes, rate).astype(kind.numpy())
        bound = index_bound(value)
        if bound is None:
            bound = 256 if kind == ir.DataType.UINT8 else _BOUND
        bound = min(bound, 1 << (kind.bitwidth - kind.is_signed()))
        return generator.integers(0, max(bound, 1), sizes).astype(kind.numpy())
    return generator.standard_normal(sizes, dtype=np.float32).astype(kind.numpy())


_THROUGH = frozenset(
    {"Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Flatten"}
)


def index_bound(value: ir.Value) -> int | None:
    """The smallest table that the integers in `value` index, None where none is found.

    Looks through nodes that only move or cast, to Gather's axis and OneHot's depth.
    """
    bounds: list[int] = []
    waiting, seen = [value], {id(value)}
    while waiting:
        for use in waiting.pop().uses():
            node, position = use.node, use.idx
            if node.op_type in _THROUGH and position == 0:
                for output in node.outputs:
                    if id(output) not in seen:
                        seen.add(id(output))
                        waiting.append(output)
            elif node.op_type in ("Gather", "GatherElements") and position == 1:
                bounds += _axis_size(node)
            elif node.op_type == "OneHot" and position == 0:
                depth = constant(node.inputs[1])
                bounds += [] if depth is None else [int(depth.reshape(-1)[0])]
    return min(bounds, default=None)


def _axis_size(gather: ir.Node) -> list[int]:
    table = gather.inputs[0]
    axis = gather.attributes.get("axis")
    at = 0 if axis is None else axis.as_int()
    shape = None if table is None else table.shape
    if shape is None or not -len(shape) <= at < len(shape):
        return []
    size = shape[at]
    return [size] if isinstance(size, int) else []


def _reason(said: str) -> str:
    return said[:150] or "none could be made"


def _hint(model: Model) -> str:
    inputs = list(model.graph_model.graph.inputs)
    free = [
        v for v in inputs if v.shape is None or any(not isinstance(s, int) for s in v.shape)
    ]
    if not free:
        return "give --calib with real inputs: " + "; ".join(map(describe, inputs))
    asked = " ".join(f"--shape {v.name}:{_example(v)}" for v in free)
    return f"give the sizes, e.g. {asked}, or --calib"


def _example(value: ir.Value) -> str:
    shape = value.shape if value.shape is not None else [1]
    return "x".join(str(s) if isinstance(s, int) else "1" for s in shape)
