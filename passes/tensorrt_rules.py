"""What each TensorRT's ONNX parser refuses although it lists the operator.

From the restrictions in onnx-tensorrt's operators.md and the assertions of its importers, at
7.1, 8.2-GA, 8.5-GA and 10.1-GA; where the two differ the documented, narrower one holds.
TensorRT-RTX has no public importers: its rules are what the parser and builder of
tensorrt-rtx 1.7.1.116 refuse when asked (tests/bench/test_rtx_rules.py asks again).
"""

from collections.abc import Iterator, Mapping
from typing import Final

import onnx_ir as ir

from ..device_profiles.profile import DeviceProfile, Parser
from . import parser_rules as rules
from .parser_rules import BOOL, INTEGERS, Rule, Violation
from .parser_rules import constant as constant
from .parser_rules import must_be_weights as weights

MOST_AXES: Final = 8
"""nvinfer1::Dims::MAX_DIMS."""
CLAMPS_INT64: Final[frozenset[Parser]] = frozenset(
    {"tensorrt-7.1", "tensorrt-8.2", "tensorrt-8.5"}
)
OLDEST_OPSET: Final[Mapping[Parser, int]] = {
    "tensorrt-7.1": 7,
    "tensorrt-8.2": 7,
    "tensorrt-8.5": 7,
    "tensorrt-10": 9,
    "tensorrt-rtx": 9,
}

_Table = Mapping[str, tuple[Rule, ...]]


def violations(node: ir.Node, profile: DeviceProfile) -> Iterator[Violation]:
    """Reasons why the parser of `profile` refuses `node`, each with what to do.

    Says nothing of operators that the parser does not list: see `check.objections`.

    Args:
        node: connected; element types and shapes count where they are known.
        profile: the device.
    """
    if profile.parser is None or node.domain not in ("", "ai.onnx"):
        return
    for rule in _TABLES[profile.parser].get(node.op_type, ()):
        yield from rule(node)
    for value in node.outputs:
        if value.shape is not None and len(value.shape) > MOST_AXES:
            yield (
                f"makes a tensor of rank {len(value.shape)}; at most {MOST_AXES} axes",
                "reshape so that fewer axes are needed",
            )


_SYMMETRIC = rules.symmetric(ir.DataType.INT8, implied=False)
_SYMMETRIC_10 = rules.symmetric(
    ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, implied=True
)
_TRANSFORMS = (
    "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners",
)  # fmt: skip
_ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
_RESIZE = rules.resize(_TRANSFORMS, _ROUNDINGS)
_2_OR_3 = rules.spatial(2, 3)
_NO_INTEGERS = rules.not_of(INTEGERS)
_DATA_NO_INTEGERS = rules.not_of(INTEGERS, 0)
_DATA_NO_BOOL = rules.not_of(BOOL, 0)
_NO_NUMBERS_BUT_FLOATS = rules.not_of(INTEGERS | BOOL, 0)
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
_SOME_AXES = rules.rank(*range(2, MOST_AXES + 1))
_LSTM = (rules.same_activations, rules.attribute_is("input_forget", 0, 0))

_EVERY: _Table = {
    "ArgMax": (_SOME_AXES,),
    "ArgMin": (_SOME_AXES,),
    "AveragePool": (_2_OR_3, rules.undilated),
    "BatchNormalization": (rules.inference_statistics,),
    "Constant": (rules.dense_constant,),
    "CumSum": (weights(1, what="axis"),),
    "DepthToSpace": (rules.rank(4), _DATA_NO_BOOL),
    "Dropout": (rules.dropout_off,),
    "Gemm": (_NO_INTEGERS,),
    "GRU": (rules.same_activations,),
    "If": (rules.distinct_branch_outputs,),
    "LpPool": (rules.undilated,),
    "LSTM": _LSTM,
    "MatMul": (_NO_INTEGERS,),
    "MaxPool": (_2_OR_3, rules.undilated, rules.first_output_only("the Indices output")),
    "RNN": (rules.same_activations,),
    "Slice": (weights(3, what="axes"),),
    "SpaceToDepth": (rules.rank(4), _DATA_NO_BOOL),
    "Squeeze": (weights(1, what="axes"),),
    "Unsqueeze": (weights(1, what="axes"),),
    "Upsample": (weights(1, what="scales"),),
    **{name: (weights(1, what="axes"),) for name in _REDUCTIONS},
}

_8_5: _Table = {
    **_EVERY,
    "Conv": (weights(2, what="bias"),),
    "ConvTranspose": (rules.spatial(1, 2, 3), weights(2, what="bias")),
    "DequantizeLinear": (_SYMMETRIC,),
    "Einsum": (rules.plain_einsum,),
    "EyeLike": (rules.static_shape,),
    "GridSample": (rules.rank(4),),
    "InstanceNormalization": (rules.rank(3, 4, 5), weights(1, 2, what="scale and bias")),
    "Pow": (rules.not_of(INTEGERS | BOOL),),
    "PRelu": (_NO_INTEGERS,),
    "QuantizeLinear": (_SYMMETRIC,),
    "Resize": (_RESIZE, _NO_NUMBERS_BUT_FLOATS),
    "ReverseSequence": (rules.static_shape,),
    "ScatterElements": (rules.absent("reduction", "none"),),
    "ScatterND": (rules.absent("reduction", "none"),),
    "Sign": (_NO_NUMBERS_BUT_FLOATS,),
    "TopK": (weights(1, what="K"), _DATA_NO_INTEGERS),
    "Upsample": (weights(1, what="scales"), _NO_NUMBERS_BUT_FLOATS),
}

_8_2: _Table = {
    **_8_5,
    "ArgMax": (_SOME_AXES, _DATA_NO_INTEGERS),
    "ArgMin": (_SOME_AXES, _DATA_NO_INTEGERS),
    "Conv": (_2_OR_3, weights(1, 2, what="weights and bias")),
    "ConvTranspose": (_2_OR_3, weights(1, 2, what="weights and bias")),
    "Equal": (rules.not_of(BOOL),),
    "Gather": (_DATA_NO_BOOL,),
    "GatherElements": (_DATA_NO_BOOL,),
    "GatherND": (_DATA_NO_BOOL,),
    "NonMaxSuppression": (weights(2, 3, 4, what="limits and thresholds"),),
    "Range": (rules.float_range_of_weights,),
}

_7_1: _Table = {
    **_8_2,
    "Abs": (_NO_NUMBERS_BUT_FLOATS,),
    "Clip": (weights(1, 2, what="min and max"),),
    "Concat": (rules.not_of(BOOL),),
    "DequantizeLinear": (_SYMMETRIC, weights(1, what="scale")),
    "InstanceNormalization": (
        rules.static_shape,
        rules.rank(3, 4, 5),
        weights(1, 2, what="scale and bias"),
    ),
    "Neg": (_NO_NUMBERS_BUT_FLOATS,),
    "Pad": (weights(1, 2, what="pads and value"), rules.zero_padding_of_two_axes),
    "QuantizeLinear": (_SYMMETRIC, weights(1, what="scale")),
    "Resize": (
        rules.resize(("asymmetric",), ("floor",)),
        _NO_NUMBERS_BUT_FLOATS,
    ),
    "Slice": (weights(3, what="axes"), _DATA_NO_BOOL),
    "Split": (_DATA_NO_BOOL,),
    "Tile": (_DATA_NO_BOOL,),
    "Where": (rules.not_of(BOOL, 1, 2),),
}

_10: _Table = {
    **_EVERY,
    "ConvTranspose": (rules.spatial(1, 2, 3),),
    "DequantizeLinear": (_SYMMETRIC_10,),
    "EyeLike": (rules.static_shape,),
    "GridSample": (rules.rank(4),),
    "LayerNormalization": (rules.first_output_only("another output than Y"),),
    "LSTM": (*_LSTM, rules.attribute_is("layout", 0, 0)),
    "OneHot": (weights(1, what="depth"),),
    "Pad": (weights(3, what="axes"),),
    "QuantizeLinear": (_SYMMETRIC_10,),
    "Resize": (
        _RESIZE,
        rules.attribute_is("antialias", 0, 0),
        rules.absent("keep_aspect_ratio_policy", "stretch"),
    ),
    "ScatterND": (rules.absent("reduction", "none"),),
    "TopK": (rules.attribute_is("sorted", 1, 1), rules.few_largest(3840)),
}

_RTX: _Table = {
    **_10,
    "AveragePool": (rules.spatial(1, 2, 3), rules.undilated),
    "GridSample": (rules.rank(4, 5),),
    "If": (),
    "LSTM": _LSTM,
    "MaxPool": (
        rules.spatial(1, 2, 3),
        rules.undilated,
        rules.first_output_only("the Indices output"),
    ),
    "Range": (rules.float_range_of_weights,),
    "Resize": (
        rules.resize(_TRANSFORMS, _ROUNDINGS, modes=("nearest", "linear", "cubic")),
        rules.attribute_is("antialias", 0, 0),
        rules.absent("keep_aspect_ratio_policy", "stretch"),
    ),
    "ScatterElements": (rules.absent("reduction", "none"),),
    "TopK": (rules.few_largest(3841),),
}

_TABLES: Mapping[Parser, _Table] = {
    "tensorrt-7.1": _7_1,
    "tensorrt-8.2": _8_2,
    "tensorrt-8.5": _8_5,
    "tensorrt-10": _10,
    "tensorrt-rtx": _RTX,
}
