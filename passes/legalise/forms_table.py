"""Operators whose form differs between operator sets, and those that a few nodes replace."""

from collections.abc import Mapping

from .axes_forms import reduction, split, squeeze, unsqueeze
from .einsum import einsum
from .elementwise import (
    batch_normalization,
    celu,
    dropout,
    equal,
    greater_or_equal,
    is_inf,
    is_nan,
    less_or_equal,
    mod,
    reciprocal,
    round_half_even,
    sign,
    where,
    xor,
)
from .indexing import gather_elements, gather_nd, scatter_elements, scatter_nd
from .lowering import Lowering
from .padding import pad, pad_in_parts
from .quantized import dequantize, quantize
from .recurrent import time_first
from .resize import resize
from .resize_matrix import as_matrices, nearest_by_whole_factors
from .sequences import NO_OPTIONALS, NO_SEQUENCES, concat_from_sequence, refused, sequence_at
from .shape_forms import (
    cum_sum,
    extreme_index,
    eye_like,
    hardmax,
    one_hot,
    reshape,
    shape,
    size,
    softmax,
    space_to_depth,
)
from .spatial import (
    as_two_dimensional,
    average_pool,
    global_lp_pool,
    lp_normalization,
    lp_pool,
    max_pool,
    roi_align,
)
from .typed_forms import (
    cast,
    cast_like,
    clip,
    constant,
    extremum,
    in_another_type,
    numbers_in_another_type,
    power,
)

_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
_TYPED = (
    "Abs", "Add", "And", "ArgMax", "ArgMin", "Ceil", "Celu", "Clip", "Compress", "Concat",
    "CumSum", "Div", "Einsum", "Elu", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual", "HardSigmoid",
    "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "MatMul", "Max", "MaxPool", "Mean", "Min", "Mod", "Mul", "Neg", "OneHot", "Pad", "Pow",
    "PRelu", "Range", "Relu", "Reshape", "Resize", "ReverseSequence", "Round",
    "ScatterElements", "ScatterND", "Selu", "Sigmoid", "Sign", "Slice", "Softmax", "Softplus",
    "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose",
    "Unsqueeze", "Upsample",
)  # fmt: skip
_SEQUENCES = (
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SequenceMap", "SplitToSequence",
)  # fmt: skip
_BITS = refused("there is no bitwise arithmetic on integers", "compute it with booleans")
_COUNTED = "the size of its result depends on values"
_BY_VALUE = refused(_COUNTED, "compute it outside the model")

_OWN: Mapping[str, tuple[Lowering, ...]] = {
    **dict.fromkeys(_REDUCTIONS, (numbers_in_another_type, reduction)),
    **dict.fromkeys(_SEQUENCES, (NO_SEQUENCES,)),
    "ArgMax": (extreme_index,),
    "ArgMin": (extreme_index,),
    "AveragePool": (as_two_dimensional, average_pool),
    "BatchNormalization": (batch_normalization,),
    "BitShift": (_BITS,),
    "BitwiseAnd": (_BITS,),
    "BitwiseNot": (_BITS,),
    "BitwiseOr": (_BITS,),
    "BitwiseXor": (_BITS,),
    "Cast": (cast,),
    "CastLike": (cast_like,),
    "Celu": (celu,),
    "Clip": (clip,),
    "Compress": (_BY_VALUE,),
    "ConcatFromSequence": (concat_from_sequence,),
    "Constant": (constant,),
    "Conv": (as_two_dimensional,),
    "ConvTranspose": (as_two_dimensional,),
    "CumSum": (cum_sum,),
    "DequantizeLinear": (dequantize,),
    "Dropout": (dropout,),
    "Einsum": (einsum,),
    "Equal": (equal, in_another_type),
    "EyeLike": (eye_like,),
    "GRU": (time_first,),
    "GatherElements": (gather_elements,),
    "GatherND": (gather_nd,),
    "GlobalLpPool": (global_lp_pool,),
    "GreaterOrEqual": (greater_or_equal,),
    "Hardmax": (hardmax,),
    "IsInf": (is_inf,),
    "IsNaN": (is_nan,),
    "LSTM": (time_first,),
    "LessOrEqual": (less_or_equal,),
    "LogSoftmax": (softmax,),
    "LpNormalization": (lp_normalization,),
    "LpPool": (as_two_dimensional, lp_pool),
    "Max": (extremum,),
    "MaxPool": (as_two_dimensional, max_pool),
    "Min": (extremum,),
    "Mod": (mod,),
    "NonZero": (_BY_VALUE,),
    "OneHot": (one_hot,),
    "Optional": (NO_OPTIONALS,),
    "OptionalGetElement": (NO_OPTIONALS,),
    "OptionalHasElement": (NO_OPTIONALS,),
    "Pad": (pad, pad_in_parts),
    "Pow": (power,),
    "QuantizeLinear": (quantize,),
    "RNN": (time_first,),
    "Reciprocal": (reciprocal,),
    "Reshape": (reshape,),
    "Resize": (resize, nearest_by_whole_factors, as_matrices),
    "RoiAlign": (roi_align,),
    "Round": (round_half_even,),
    "ScatterElements": (scatter_elements,),
    "ScatterND": (scatter_nd,),
    "SequenceAt": (sequence_at,),
    "Shape": (shape,),
    "Sign": (sign,),
    "Size": (size,),
    "Softmax": (softmax,),
    "SpaceToDepth": (space_to_depth,),
    "Split": (split,),
    "Squeeze": (squeeze,),
    "Unique": (_BY_VALUE,),
    "Unsqueeze": (unsqueeze,),
    "Where": (where, in_another_type),
    "Xor": (xor,),
}

FORMS: Mapping[str, tuple[Lowering, ...]] = {
    op: (*((in_another_type,) if op in _TYPED else ()), *_OWN.get(op, ()))
    for op in sorted({*_OWN, *_TYPED})
}
"""Operator to lowerings; another element type is tried first, since it costs least."""
