"""The networks of the published rows, by name."""

from collections.abc import Callable, Mapping
from functools import cache, partial

from ..errors import UsageError
from . import nets_classic as classic
from . import nets_mobile as mobile
from .draft import Net

LOW_RANK_ALEXNETS: Mapping[str, tuple[int, ...]] = {
    "l1": (9, 34, 103, 116, 143, 1075, 937, 449),
    "l2": (8, 30, 85, 90, 114, 770, 582, 341),
    "l3": (7, 28, 69, 71, 88, 506, 349, 255),
}
"""Ranks of conv1-5 and fc6-8 of the low-rank AlexNets of Part V, Table 9.

Models v2, v3 and v5 of scheme 2 in examples/low_rank_alexnets/model_def.py of
github.com/UCMerced-ML/LC-model-compression; their errors, multiply-adds and sizes are those
that Table 9 and Figure 4 print for L1, L2 and L3.
"""

NETS: Mapping[str, Callable[[int, int], Net]] = {
    "alexnet": classic.alexnet,
    "caffe-alexnet": classic.caffe_alexnet,
    **{
        f"low-rank-alexnet-{name}": partial(classic.low_rank_alexnet, ranks=ranks)
        for name, ranks in LOW_RANK_ALEXNETS.items()
    },
    "squeezenet1_0": partial(classic.squeezenet, version="1.0"),
    "squeezenet1_1": partial(classic.squeezenet, version="1.1"),
    **{f"vgg{n}": partial(classic.vgg, depth=n) for n in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": partial(classic.vgg, depth=n, norm=True) for n in (11, 13, 16, 19)},
    **{f"resnet{n}": partial(classic.resnet, depth=n) for n in (18, 34, 50, 101, 152)},
    "fcn_resnet50": classic.fcn_resnet50,
    **{f"densenet{n}": partial(classic.densenet, depth=n) for n in (121, 161, 169, 201)},
    "googlenet": classic.googlenet,
    "mobilenet_v2": mobile.mobilenet_v2,
    "mobilenet_v3_large": partial(mobile.mobilenet_v3, size="large"),
    "mobilenet_v3_small": partial(mobile.mobilenet_v3, size="small"),
    "efficientnet_b0": mobile.efficientnet_b0,
}


@cache
def net(name: str, side: int = 224, classes: int = 1000) -> Net:
    """The network called `name`, for one side × side image.

    Raises:
        UsageError: no network is called that.

    Example:
        >>> net("resnet18").macs
        1814073344
    """
    if name not in NETS:
        known = ", ".join(sorted(NETS))
        raise UsageError(f"no network is called {name!r}", hint=f"known: {known}")
    return NETS[name](side, classes)
