"""Torch nets as both of torch's exporters write them, at every opset they can write.

The nets are those of `export_nets` and, one by one or many in a graph, the operators of
`export_operators`.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
import onnx
import torch
from torch import nn

import export_nets as nets
import export_operators as operators

Exporter = Literal["torchscript", "dynamo"]
OPSETS: Mapping[Exporter, range] = {"torchscript": range(11, 21), "dynamo": range(18, 24)}
"""What each exporter of torch 2.13 writes.

torchscript refuses opsets above 20. The other writes 18 and raises it; asked for less it
writes 18 all the same (its conversion down fails and is skipped).
"""


@dataclass(frozen=True)
class Exported:
    """A net and what it is exported with.

    Args:
        build: makes the module.
        inputs: shape, then the axes that are dynamic, of every input.
        below: integer inputs are drawn below this, by position; the others are normal.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    below: Mapping[int, int] = field(default_factory=dict)

    def module(self) -> nn.Module:
        """In evaluation mode, always the same weights, statistics not trivial."""
        torch.manual_seed(0)
        module = self.build().eval()
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                torch.nn.init.normal_(layer.running_mean, 0, 0.2)
                torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
                torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
        return module

    def arrays(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Inputs by name, of the shapes that the export saw."""
        rng = np.random.default_rng(seed)
        return {
            f"in{at}": rng.integers(0, self.below[at], shape)
            if at in self.below
            else rng.standard_normal(shape).astype(np.float32)
            for at, (shape, _) in enumerate(self.inputs)
        }


def _image(build, side=32, channels=3, axes=(0, 2, 3), batch=2):
    return Exported(build, (((batch, channels, side, side), axes),))


NETS: Mapping[str, Exported] = {
    "resnet18": _image(nets.ResNet18),
    "vgg": _image(nets.VGG, axes=(0,)),
    "densenet": _image(nets.DenseNet, 16),
    "mobilenet-v2": _image(nets.mobilenet_v2),
    "mobilenet-v3": _image(nets.mobilenet_v3),
    "efficientnet": _image(nets.efficientnet),
    "unet": _image(nets.UNet, 18),
    "detector": _image(nets.Detector, axes=(0,)),
    "vit": _image(nets.ViT, axes=(0,)),
    "bert": Exported(nets.BertBlock, (((2, 9), (0, 1)), ((2, 9), (0, 1))), {0: 50, 1: 2}),
    "decoder": Exported(nets.Decoder, (((2, 7, 16), (0, 1)),)),
    "rotary": Exported(nets.Rotary, (((2, 6, 32), (0, 1)),)),
    "recurrent": Exported(nets.Recurrent, (((2, 7), (0, 1)),), {0: 30}),
    "audio": Exported(nets.Audio, (((2, 1, 256), (0,)),)),
    "frames": Exported(nets.Frames, (((2, 128), (0,)), ((2, 8), (0,)), ((2, 8), (0,)))),
    "convolutions": _image(nets.Convolutions, 16, 4, (0,)),
    "normalisations": _image(nets.Normalisations, 6, 4, (0,)),
}
"""Whole nets, by name."""

_PAIR = ((3, 4), (0,))
_GROUPS = {
    "images": (operators.IMAGES, (((2, 4, 6, 6), (0,)),), {}),
    "indexing": (operators.INDEXING, (((3, 4, 5), (1,)), ((3, 4, 5), (1,))), {1: 3}),
    "arithmetic": (operators.ARITHMETIC, (_PAIR, _PAIR), {1: 9}),
    "products": (operators.PRODUCTS, (((2, 5, 4), (1,)), ((2, 5, 4), (1,))), {}),
}


def several(group: str, names: tuple[str, ...]) -> Exported:
    """A net of the operators `names` of one group of `OPERATORS`."""
    functions, inputs, below = _GROUPS[group]
    chosen = {name: functions[name] for name in names}
    return Exported(lambda: operators.Several(chosen), inputs, below)


OPERATORS: Mapping[str, tuple[str, ...]] = {
    group: tuple(functions) for group, (functions, *_) in _GROUPS.items()
}
"""Names of single operators, by the inputs they take."""


FAILS_IN_TORCH: Mapping[str, tuple[int, str]] = {
    "vit": (14, "scaled_dot_product_attention"),
    "bert": (14, "scaled_dot_product_attention"),
    "decoder": (14, "aten::tril"),
    "rotary": (14, "aten::outer at 11, then scaled_dot_product_attention"),
    "images:celu": (12, "aten::celu"),
    "images:fold": (99, "aten::col2im up to 17, then a TypeError while translating it"),
    "images:rms_norm": (99, "aten::rms_norm"),
    "images:sdpa": (14, "scaled_dot_product_attention"),
    "images:sdpa_causal": (14, "scaled_dot_product_attention"),
    "images:sdpa_shared": (99, "not implemented if enable_gqa is True"),
    "images:threshold": (99, "threshold, non-zero threshold"),
    "images:tril": (14, "aten::tril"),
    "images:triu": (14, "aten::triu"),
    "images:upsample_antialias": (99, "aten::_upsample_bilinear2d_aa"),
    "indexing:take_along_dim": (99, "aten::take_along_dim"),
    "arithmetic:bitwise_and": (18, "bitwise AND for non-boolean input values"),
    "arithmetic:exp2": (99, "aten::exp2"),
    "arithmetic:expm1": (99, "aten::expm1"),
    "arithmetic:frac": (99, "aten::frac"),
    "arithmetic:trunc": (99, "aten::trunc"),
    "arithmetic:xlogy": (99, "aten::xlogy"),
    "products:bilinear": (99, "aten::bilinear"),
    "products:einsum_batched": (12, "aten::einsum"),
    "products:einsum_broadcast": (12, "aten::einsum"),
    "products:einsum_heads": (12, "aten::einsum"),
    "products:einsum_sum": (12, "aten::einsum"),
    "products:einsum_ellipsis": (12, "aten::einsum"),
    "products:einsum_outer": (12, "aten::einsum"),
    "products:outer": (12, "aten::outer"),
    "products:tensordot": (12, "aten::tensordot"),
}
"""The first opset that the torchscript exporter writes (99: none), and what it says before.

It also refuses a layer_norm over computed sizes (`images:layer_norm` with dynamic axes), and
its Clip of whole numbers at opset 11 with dynamic axes mixes int64 with float limits, which is
no valid ONNX.
"""
FAILS_IN_DYNAMO: Mapping[str, tuple[int, str]] = {
    "products:cdist": (0, "No ONNX function found for aten::_cdist_forward"),
    "indexing:masked_select": (0, "No ONNX function found for aten::masked_select"),
    "indexing:mask_index": (18, "Failed to decompose the FX graph, when asked a second time"),
    "indexing:nonzero": (18, "Failed to decompose the FX graph, when asked a second time"),
    "indexing:unique": (18, "Failed to decompose the FX graph, when asked a second time"),
}
"""The last opset that the dynamo exporter writes (0: none), and what it says."""


def is_writable(name: str, exporter: Exporter, opset: int, dynamic: bool) -> bool:
    """Whether torch writes a net, or an operator `group:name`, as valid ONNX."""
    if exporter == "dynamo":
        return opset <= FAILS_IN_DYNAMO.get(name, (99, ""))[0]
    if dynamic and (name == "images:layer_norm" or (name, opset) == CLIP_OF_MIXED_TYPES):
        return False
    return opset >= FAILS_IN_TORCH.get(name, (0, ""))[0]


CLIP_OF_MIXED_TYPES = ("arithmetic:clamp_int", 11)


def export(net: Exported, exporter: Exporter, opset: int, dynamic: bool) -> onnx.ModelProto:
    """What torch writes: inputs in0, in1, …; axes as the net says where `dynamic`.

    Raises:
        Exception: whatever torch raises.
    """
    names = [f"in{at}" for at in range(len(net.inputs))]
    axes = {
        name: {axis: f"{name}_{axis}" for axis in dims}
        for name, (_, dims) in zip(names, net.inputs, strict=True)
    }
    with _quiet(), torch.no_grad():
        if exporter == "dynamo":
            program = torch.onnx.export(
                _captured(net, dynamic), opset_version=opset, input_names=names,
                dynamo=True, verbose=False,
            )  # fmt: skip
            assert program is not None
            return program.model_proto
        buffer = io.BytesIO()
        torch.onnx.export(
            net.module(), _example(net), buffer, opset_version=opset, input_names=names,
            dynamo=False, dynamic_axes=axes if dynamic else None,
        )  # fmt: skip
        return onnx.load_from_string(buffer.getvalue())


def _example(net: Exported) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in net.arrays().values())


@cache
def _capture(key: int, dynamic: bool) -> torch.export.ExportedProgram:
    net = _KNOWN[key]
    shapes = [dict.fromkeys(dims, torch.export.Dim.AUTO) for _, dims in net.inputs]
    module = net.module()
    if isinstance(module, operators.Several):  # its forward takes any number
        given = {"inputs": tuple(shapes)} if dynamic else None
    else:
        given = tuple(shapes) if dynamic else None
    return torch.export.export(module, _example(net), dynamic_shapes=given, strict=False)


_KNOWN: dict[int, Exported] = {}


def _captured(net: Exported, dynamic: bool) -> torch.export.ExportedProgram:
    """Torch's own graph of a net, made once for all opsets."""
    _KNOWN[id(net)] = net
    return _capture(id(net), dynamic)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Neither warnings nor progress from torch, its C++ side included; no fused encoder."""
    level, fast = logging.root.manager.disable, torch.backends.mha.get_fastpath_enabled()
    logging.disable(logging.CRITICAL)
    torch.backends.mha.set_fastpath_enabled(False)
    outputs = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for kept, at in zip(outputs, (1, 2), strict=True):
            os.dup2(kept, at)
            os.close(kept)
        os.close(nowhere)
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.disable(level)
