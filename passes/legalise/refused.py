"""Operators that nothing here replaces: why, and what a person can do instead."""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from .known import Refused
from .lowering import Builder, Lowering


def _refuses(reason: str, remedy: str) -> Lowering:
    """A lowering that only says no, where the device does not list the operator."""

    def refuse(node: ir.Node, b: Builder) -> None:
        if not b.goal.takes(node.op_type):
            raise Refused(reason, remedy)

    return refuse


_SAMPLES = _refuses(
    "it reads single pixels at computed places, for which the device has no kernel",
    "re-export with a fixed Resize, or leave the sampling outside of the model",
)
_SIZED_BY_DATA = _refuses(
    "the size of its output depends on values, which a fixed engine cannot hold",
    "re-export with a mask (Where) in its place, or do this step outside of the model",
)
_STRINGS = _refuses("the device has no strings", "leave text processing outside of the model")
_SPECTRA = _refuses(
    "a Fourier transform of computed input has no counterpart",
    "re-export it as a convolution with windowed sines, or compute features before the model",
)
_RANDOM = _refuses(
    "random numbers of this kind cannot be drawn there",
    "draw them outside and pass them as an input",
)
_QUANTISED = _refuses(
    "integer arithmetic is written as QuantizeLinear and DequantizeLinear there",
    "start from the model before quantization",
)
_FUSED = _refuses(
    "it is a fusion of ONNX Runtime's own optimiser",
    "start from the model before ONNX Runtime's optimiser or quantiser rewrote it",
)
_BRANCHES = _refuses(
    "its condition is computed, and the parser has no branches",
    "fix the condition when exporting (a constant one is folded)",
)
_SCATTERS = _refuses(
    "the device writes to no computed places",
    "re-export with Where or Concat in place of indexed assignment",
)
_OBSOLETE = _refuses("nothing replaces it", "compute it outside of the model")
_TRAINING = _refuses("it belongs to training", "export the model in evaluation mode")

_GROUPS: Sequence[tuple[Lowering, str]] = (
    (_SAMPLES, "GridSample AffineGrid DeformConv RoiAlign MaxRoiPool MaxUnpool"),
    (_SIZED_BY_DATA, "NonMaxSuppression"),
    (
        _STRINGS,
        "ImageDecoder RegexFullMatch StringConcat StringNormalizer StringSplit "
        "TfIdfVectorizer",
    ),
    (_SPECTRA, "DFT STFT MelWeightMatrix BlackmanWindow HammingWindow HannWindow"),
    (
        _RANDOM,
        "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    ),
    (
        _QUANTISED,
        "ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul",
    ),
    (_BRANCHES, "If"),
    (_SCATTERS, "Scatter TensorScatter"),
    (_OBSOLETE, "Det"),
    (_TRAINING, "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss"),
)
_ORT = (
    "Attention BiasAdd BiasSoftmax BiasSplitGelu DecoderMaskedMultiHeadAttention "
    "DynamicQuantizeLSTM DynamicQuantizeMatMul EmbedLayerNormalization FusedConv FusedGemm "
    "FusedMatMul GatherBlockQuantized GroupNorm GroupQueryAttention LongformerAttention "
    "MatMulBnb4 MatMulIntegerToFloat MatMulNBits MultiHeadAttention NhwcConv "
    "PackedAttention QAttention QGemm QLinearAdd QLinearAveragePool QLinearConcat "
    "QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearSoftmax QMoE "
    "RelativePositionBias RotaryEmbedding SimplifiedLayerNormalization "
    "SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization TransposeMatMul"
)

LOWERINGS: Mapping[str, tuple[Lowering, ...]] = {
    **{op: (refuse,) for refuse, names in _GROUPS for op in names.split()},
    **{f"com.microsoft::{op}": (_FUSED,) for op in _ORT.split()},
}
"""They stand behind every other lowering of the same operator."""
