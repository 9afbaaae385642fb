"""Single operators of torch, to be exported one by one or many in a graph."""

# ruff: noqa: ARG005  one signature a group, whatever an operator needs of it

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

Function = Callable[..., Tensor]


class Several(nn.Module):
    """The results of several functions of the same inputs."""

    def __init__(self, functions: Mapping[str, Function]):
        super().__init__()
        self.functions = list(functions.values())
        self.layers = nn.ModuleList(f for f in self.functions if isinstance(f, nn.Module))

    def forward(self, *inputs):
        return tuple(function(*inputs) for function in self.functions)


def index_put(x, at):
    return x.index_put((at[:2, 0, 0],), torch.ones(2, x.shape[1], x.shape[2]))


def assigned(x, at):
    y = x.clone()
    y[:, 0] = at[:, 1].float()
    y[:, 1:, ::2] = 0.5
    return y


WEIGHTS = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


IMAGES: Mapping[str, Function] = {
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_max_pool": lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    "all": lambda x: (x > -9).all(-1),
    "amax": lambda x: x.amax((1, 2)),
    "amin": lambda x: x.amin(-1, keepdim=True),
    "any": lambda x: (x > 0).any(1),
    "argmax": lambda x: x.argmax(1, keepdim=True),
    "argmin": lambda x: x.argmin(-1),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg_pool_ceil": lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True),
    "avg_pool_ceil_pad": lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg_pool_inside": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "cat_chunks": lambda x: torch.cat([z * 2 for z in x.chunk(3, 2)], 2),
    "celu": nn.CELU(1.3),
    "cumsum": lambda x: x.cumsum(1),
    "cumprod_free_cumsum": lambda x: x.flip(1).cumsum(-1),
    "depth_to_space": lambda x: F.pixel_shuffle(x, 2),
    "elu": nn.ELU(0.7),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "eye": lambda x: torch.eye(x.shape[2]) + x,
    "flip": lambda x: x.flip(2),
    "fold": lambda x: F.fold(F.unfold(x, 2), (x.shape[2], x.shape[3]), 2),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "glu": nn.GLU(1),
    "hardshrink": nn.Hardshrink(0.3),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardswish": nn.Hardswish(),
    "hardtanh": nn.Hardtanh(-0.5, 0.5),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[2:]),
    "leaky_relu": nn.LeakyReLU(0.2),
    "log_softmax": nn.LogSoftmax(1),
    "logsigmoid": nn.LogSigmoid(),
    "logsumexp": lambda x: x.logsumexp(1),
    "lp_pool": lambda x: F.lp_pool2d(x, 2.0, 2),
    "max": lambda x: x.max(1)[0],
    "max_pool_ceil": lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "max_pool_dilated": lambda x: F.max_pool2d(x, 2, dilation=2, stride=1),
    "mean": lambda x: x.mean(),
    "mish": nn.Mish(),
    "movedim": lambda x: x.movedim(1, -1),
    "narrow": lambda x: x.narrow(3, 1, 2),
    "norm": lambda x: x.norm(dim=(2, 3)),
    "norm_1": lambda x: x.abs().sum(1),
    "normalize": lambda x: F.normalize(x, dim=1),
    "normalize_1": lambda x: F.normalize(x, p=1.0, dim=-1),
    "pad": lambda x: F.pad(x, (1, 2), value=0.5),
    "pad_circular": lambda x: F.pad(x, (1, 1, 2, 0), mode="circular"),
    "pad_reflect": lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect"),
    "pad_replicate": lambda x: F.pad(x, (1, 2, 0, 1), mode="replicate"),
    "permute_view": lambda x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "prelu": nn.PReLU(4),
    "prelu_one": nn.PReLU(),
    "prod": lambda x: x.prod(1),
    "relu6": nn.ReLU6(),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "rms_norm": nn.RMSNorm([6], eps=1e-6),
    "roll": lambda x: x.roll((1, -2), (3, 2)),
    "rsqrt_mean": lambda x: torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6),
    "sdpa": lambda x: F.scaled_dot_product_attention(x, x * 2, x),
    "sdpa_causal": lambda x: F.scaled_dot_product_attention(
        x, x, x, is_causal=True, scale=0.3
    ),
    "sdpa_shared": lambda x: F.scaled_dot_product_attention(x, x[:, :2], x[:, 2:],
                                                            enable_gqa=True),
    "select": lambda x: x.select(1, 1),
    "selu": nn.SELU(),
    "silu": nn.SiLU(),
    "slice": lambda x: x[:, :, ::2, 1:-1],
    "softmax": lambda x: x.softmax(1),
    "softmax_2d": nn.Softmax2d(),
    "softmin": nn.Softmin(1),
    "softplus": nn.Softplus(),
    "softplus_beta": nn.Softplus(2.0),
    "softshrink": nn.Softshrink(0.3),
    "softsign": nn.Softsign(),
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "squeeze": lambda x: x.unsqueeze(-1).squeeze(-1),
    "stack": lambda x: torch.stack([x, x], 2),
    "std": lambda x: x.std((2, 3)),
    "sum": lambda x: x.sum((0, 2), keepdim=True),
    "tanhshrink": nn.Tanhshrink(),
    "threshold": nn.Threshold(0.1, 0.0),
    "transpose_view": lambda x: x.view(x.shape[0], 2, 2, 6, 6).transpose(1, 2),
    "tril": lambda x: torch.tril(x),
    "triu": lambda x: torch.triu(x, -1),
    "unbind": lambda x: torch.cat(x.unbind(1), 1),
    "unfold": lambda x: x.unfold(2, 2, 2),
    "unfold_2d": lambda x: F.unfold(x, 2, stride=2),
    "upsample_align": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear",
                                              align_corners=True),
    "upsample_bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "upsample_nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
    "upsample_size": lambda x: F.interpolate(x, size=(5, 7), mode="nearest"),
    "upsample_size_align": lambda x: F.interpolate(
        x, size=(x.shape[2] * 2, x.shape[3] * 3), mode="bilinear", align_corners=True
    ),
    "upsample_bicubic": lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"),
    "upsample_1d": lambda x: F.interpolate(x.flatten(2), scale_factor=2.0, mode="linear"),
    "upsample_antialias": lambda x: F.interpolate(x, size=(3, 3), mode="bilinear",
                                                  antialias=True),
    "var": lambda x: x.var(1, keepdim=True),
    "var_biased": lambda x: x.var(-1, unbiased=False),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True),
}  # fmt: skip
"""Of one input (2, 4, 6, 6)."""

INDEXING: Mapping[str, Function] = {
    "assigned": assigned,
    "gather": lambda x, at: x.gather(2, at),
    "index_put": index_put,
    "index_select": lambda x, at: x.index_select(1, torch.tensor([2, 0, 1])),
    "masked_fill": lambda x, at: x.masked_fill(at < 2, 0.25),
    "masked_select": lambda x, at: x.masked_select(at < 2),
    "nonzero": lambda x, at: at.nonzero(),
    "one_hot": lambda x, at: F.one_hot(at[:, 0], 5).float() + x.sum(),
    "rows": lambda x, at: x[at[:, 0, 0]],
    "rows_and_columns": lambda x, at: x[at[:, 0, 0] % 2, at[:, 1, 0] % 2],
    "scatter": lambda x, at: torch.zeros_like(x).scatter(2, at, 1.5),
    "scatter_add": lambda x, at: x.scatter_add(2, at, x),
    "sort": lambda x, at: x.sort(-1)[0],
    "take_along_dim": lambda x, at: x.take_along_dim(at, 2),
    "topk": lambda x, at: x.topk(2, -1)[0],
    "where": lambda x, at: torch.where(at > 2, x, -x),
    "unique": lambda x, at: torch.unique(at).sum() + x.sum(),
    "embedding": lambda x, at: F.embedding(at, WEIGHTS),
    "mask_index": lambda x, at: x[at > 2].sum(),
}
"""Of (3, 4, 5) numbers and as many indices below 3."""

ARITHMETIC: Mapping[str, Function] = {
    "addcmul": lambda x, k: torch.addcmul(x, x, x, value=0.5),
    "atan2": lambda x, k: torch.atan2(x, x.abs() + 1),
    "bitwise_and": lambda x, k: k & 3,
    "bitwise_not_bool": lambda x, k: ~(x > 0),
    "bitwise_shift": lambda x, k: k << 1,
    "ceil_floor": lambda x, k: x.ceil() - x.floor(),
    "clamp": lambda x, k: x.clamp(-0.5, 0.5),
    "clamp_int": lambda x, k: k.clamp(1, 5),
    "clamp_max_tensor": lambda x, k: torch.clamp(x, max=torch.tensor(0.3)),
    "clamp_min": lambda x, k: x.clamp(min=0.1),
    "double": lambda x, k: (x.double() * 2).float(),
    "eq": lambda x, k: k == 3,
    "erf": lambda x, k: torch.erf(x),
    "exp2": lambda x, k: torch.exp2(x),
    "expm1": lambda x, k: torch.expm1(x),
    "floor_divide": lambda x, k: torch.floor_divide(x, 0.3),
    "fmod": lambda x, k: torch.fmod(x, 0.7),
    "frac": lambda x, k: x.frac(),
    "ge": lambda x, k: x.ge(0).float(),
    "int_divide": lambda x, k: k // 2,
    "int_remainder": lambda x, k: k % 3,
    "int_remainder_negative": lambda x, k: (k - 4) % 3,
    "isinf": lambda x, k: torch.isinf(x),
    "isnan": lambda x, k: torch.isnan(x),
    "le": lambda x, k: x.le(0.2),
    "lerp": lambda x, k: torch.lerp(x, -x, 0.3),
    "log1p": lambda x, k: torch.log1p(x.abs()),
    "log2": lambda x, k: torch.log2(x.abs() + 1),
    "logical_and": lambda x, k: torch.logical_and(x > 0, k > 4),
    "logical_xor": lambda x, k: (x > 0) ^ (k > 4),
    "max_min_int": lambda x, k: torch.maximum(k, 8 - k) - torch.minimum(k, k * 2),
    "maximum": lambda x, k: torch.maximum(x, -x),
    "nan_to_num": lambda x, k: x.rsqrt().nan_to_num(0.0, 0.0, 0.0),
    "ne": lambda x, k: x.ne(0.1),
    "pow": lambda x, k: torch.pow(x.abs(), 1.5),
    "pow_int": lambda x, k: k.pow(2),
    "pow_mixed": lambda x, k: torch.pow(2, k) + torch.pow(x, k),
    "reciprocal": lambda x, k: x.reciprocal(),
    "remainder": lambda x, k: torch.remainder(x, 0.7),
    "round": lambda x, k: x.round(),
    "round_half": lambda x, k: (k * 0.5).round(),
    "round_decimals": lambda x, k: x.round(decimals=2),
    "sign": lambda x, k: x.sign(),
    "square": lambda x, k: x.pow(2) + x.square(),
    "sub_int": lambda x, k: k - 4 * k.abs(),
    "tan": lambda x, k: x.clamp(-1, 1).tan(),
    "trunc": lambda x, k: x.trunc(),
    "type_as": lambda x, k: x.type_as(k) + k,
    "xlogy": lambda x, k: torch.xlogy(x, x.abs() + 1),
    "half": lambda x, k: x.half().float(),
}
"""Of (3, 4) numbers and (3, 4) whole numbers below 9."""

PRODUCTS: Mapping[str, Function] = {
    "addmm": lambda x, y: torch.addmm(y[0], y[0] @ y[1].T, y[0]),
    "baddbmm": lambda x, y: torch.baddbmm(x, x @ x.transpose(1, 2), x),
    "bilinear": lambda x, y: F.bilinear(x, y, WEIGHTS[None, :4]),
    "bmm": lambda x, y: torch.bmm(x, x.transpose(1, 2)),
    "cdist": lambda x, y: torch.cdist(x, x + 0.5),
    "cosine": lambda x, y: F.cosine_similarity(x, x + 1, dim=-1),
    "einsum_batched": lambda x, y: torch.einsum("btc,bsc->bts", x, x),
    "einsum_broadcast": lambda x, y: torch.einsum("btc,sc->bts", x, y[0]),
    "einsum_heads": lambda x, y: torch.einsum("bid,bjd->bij", x, x),
    "einsum_sum": lambda x, y: torch.einsum("btc,sc->bs", x, y[0]),
    "einsum_ellipsis": lambda x, y: torch.einsum("...c,sc->...s", x, y[0]),
    "einsum_outer": lambda x, y: torch.einsum("i,j->ij", x[0, 0], x[0, 1]),
    "linear": lambda x, y: F.linear(x, WEIGHTS),
    "matmul": lambda x, y: torch.matmul(x, y[0].T),
    "matmul_vector": lambda x, y: x @ y[0, 0],
    "outer": lambda x, y: torch.outer(x[0, 0], x[0, 1]),
    "tensordot": lambda x, y: torch.tensordot(x, y[0], ([2], [1])),
}
"""Of two inputs (2, 5, 4)."""
