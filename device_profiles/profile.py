"""What a device is and can do, read from one TOML file a device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from .cost.roofline import Calibration, Roofline

Runtime = Literal["onnxruntime", "tensorrt"]
Parser = Literal["tensorrt-7.1", "tensorrt-8.2", "tensorrt-8.5", "tensorrt-10", "tensorrt-rtx"]
"""TensorRT's ONNX parsers that differ in what they take; also names of operator lists."""


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
class Lowering:
    """How a form becomes nodes for a device.

    Args:
        graph_precision: element type that weights and activations have in the graph itself;
            fp16 where the builder has no precision flags and computes what is written.
        quantized: how low-bit weights and int8 arithmetic are written.
        sparse: whether the device has kernels for 2:4 sparse weights.
    """

    graph_precision: Literal["fp32", "fp16"] = "fp32"
    quantized: Literal["folded", "u8s8", "s8s8"] = "folded"
    sparse: Literal["none", "2:4"] = "none"


@dataclass(frozen=True)
class Protocol:
    """How latency is measured on a device unless asked otherwise.

    Args:
        warmup_ms: time run before the first sample counts.
        iterations: samples of one round.
        rounds: fresh processes of either side, alternated.
        trim: fraction of samples dropped.
        trim_side: which; "high" drops the slowest.
        cooldown_s: pause between nets.
        round_s: time of one round, which then decides how many samples there are; 0 where
            `iterations` does.
    """

    warmup_ms: int = 200
    iterations: int = 200
    rounds: int = 7
    trim: float = 0.1
    trim_side: Literal["high", "both"] = "high"
    cooldown_s: float = 0.0
    round_s: float = 0.0


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
        parser: the ONNX parser whose rules it is held to; None where the runtime has no rules
            beyond operators and types.
        compute_capabilities: of its GPUs, e.g. ("5.3",); empty for a CPU.
        bandwidth_gbs: theoretical memory bandwidth, 10⁹ bytes/s; None where it is not known.
        peak_gflops: theoretical GFLOP/s by precision, two a multiply-add.
        build_weight_copies: copies of the weights in memory at the peak of a load or build.
        build_workspace_bytes: memory the builder takes beside the weights.
        about: further facts in words (module, clocks, software), for people.
        lowering: how forms become nodes there.
        protocol: how latency is measured there.
        cost: roofline by precision, fitted or measured; empty where nothing was calibrated.
        calibration: what the cost parameters were fitted on and how well they predict held-out
            rows, by precision; for people and reports.
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
    parser: Parser | None = None
    compute_capabilities: tuple[str, ...] = ()
    bandwidth_gbs: float | None = None
    peak_gflops: Mapping[str, float] = field(default_factory=dict[str, float])
    build_weight_copies: int = 2
    build_workspace_bytes: int = 0
    about: Mapping[str, str] = field(default_factory=dict[str, str])
    lowering: Lowering = Lowering()
    protocol: Protocol = Protocol()
    cost: Mapping[str, Roofline] = field(default_factory=dict[str, Roofline])
    calibration: Mapping[str, Calibration] = field(default_factory=dict[str, Calibration])

    @property
    def runtime_title(self) -> str:
        """The runtime and its version, as people write it."""
        title = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime"}[self.runtime]
        if self.parser == "tensorrt-rtx":
            title = "TensorRT-RTX"
        return f"{title} {self.runtime_version}".rstrip()
