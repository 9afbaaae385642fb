"""What a device is and can do, read from one TOML file a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Runtime = Literal["onnxruntime", "tensorrt"]


@dataclass(frozen=True)
class Lattice:
    """The steps that ranks and group widths take on a device.

    A rank that is not a multiple of `rank` leaves the device's fast layout (ONNX Runtime's
    NCHWc blocks are 16 floats on AVX-512), and the layer then loses most of its gain.

    Args:
        rank: ranks are multiples of this.
        group_width: channels and filters per group of a grouped convolution are multiples
            of this.
    """

    rank: int = 1
    group_width: int = 1


@dataclass(frozen=True)
class DeviceProfile:
    """A device: identity, capabilities and where each fact comes from.

    Args:
        name: the target's name on the command line.
        title: the device in words.
        runtime: what executes the model there.
        max_opset: newest default-domain operator set its runtime reads.
        max_ir_version: newest ONNX IR version its runtime reads.
        operators: operators the runtime takes, or None where there is no list to hold to.
        dtypes: tensor element types it takes, ONNX names in lower case.
        precisions: what it computes in, best first.
        lattice: the steps of ranks and group widths.
        memory_bytes: memory a model can use there, None where it is read at run time.
        is_local: whether this process runs on the device (it can be measured here).
        sources: fact name to its source, for `nncc targets show`.
        aliases: other names it answers to.
        runtime_version: version of the runtime there, "" where it is not pinned.
        build_weight_copies: copies of the weights in memory at the peak of a load or build.
        build_workspace_bytes: memory the builder takes beside the weights.
        about: further facts in words (module, clocks, software), for people.
    """

    name: str
    title: str
    runtime: Runtime
    max_opset: int
    max_ir_version: int
    operators: frozenset[str] | None
    dtypes: frozenset[str]
    precisions: tuple[str, ...]
    lattice: Lattice
    memory_bytes: int | None
    is_local: bool
    sources: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    runtime_version: str = ""
    build_weight_copies: int = 2
    build_workspace_bytes: int = 0
    about: Mapping[str, str] = field(default_factory=dict[str, str])
