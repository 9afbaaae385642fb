"""The Python entry: `nncc.compile`, the command line's options, read the same way."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .commands.settings import resolve
from .events import Listener, silent
from .writing.artifact import Artifact

if TYPE_CHECKING:
    import onnx
    import onnx_ir
    import torch


def compile(  # noqa: A001  the name users call: nncc.compile
    model: "str | Path | onnx.ModelProto | onnx_ir.Model | torch.nn.Module",
    target: str,
    *,
    example_inputs: tuple[Any, ...] | None = None,
    on_event: Listener = silent,
    **options: object,
) -> Artifact:
    """The artifact of `model` for `target`: what `nncc compile MODEL -t TARGET` writes.

    Args:
        model: a file, a model in memory, or a torch module (extra `train`).
        target: the device's name, see `nncc targets list`.
        example_inputs: positional inputs of a torch module.
        on_event: hears every step.
        options: fields of `CompileOptions`; sizes may be 0.3 or "30%".

    Raises:
        NnccError: its class says whose fault, its `hint` what to do. A budget that is not met,
            or a compile that changed nothing, is no error: see `Artifact.outcome.exit_code`.
    """
    from .pipeline import compile as run

    given = {name: value for name, value in options.items() if value is not None}
    source = Path(model) if isinstance(model, str) else model
    return run(
        source, target, resolve(given), example_inputs=example_inputs, on_event=on_event
    )
