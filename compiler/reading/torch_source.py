"""A torch module as a source: exported to ONNX with example inputs."""

import importlib
import logging
import warnings
from pathlib import Path
from typing import Any, Protocol

from ...device_profiles.errors import MissingExtra, ModelError, UsageError

logger = logging.getLogger(__name__)


class TorchModule(Protocol):
    """What of torch.nn.Module is used here; torch itself is an extra."""

    training: bool

    def eval(self) -> object: ...

    def train(self, mode: bool = True) -> object: ...


def export(module: TorchModule, example_inputs: tuple[Any, ...] | None, path: Path) -> str:
    """Exports the module to `path`, in inference mode, and returns a name for the model.

    torch's new exporter is tried first; where it cannot follow the code, the one that traces.

    Raises:
        MissingExtra: torch is not installed.
        UsageError: not a module, or no example inputs.
        ModelError: neither exporter can export it.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise MissingExtra(
            "torch is not installed",
            where="the model",
            hint="pip install 'nncc[train]', or export the module to ONNX",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise UsageError(
            f"a {type(module).__name__} is not a model",
            where="the model",
            hint="give a path, an ONNX or onnx-ir model, or a torch module",
        )
    name = type(module).__name__
    if example_inputs is None:
        raise UsageError(
            "example inputs are needed to export a torch module",
            where=name,
            hint="pass example_inputs=(x, ...)",
        )
    was_training = module.training
    failures: list[str] = []
    try:
        module.eval()
        for dynamo in (True, False):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of torch about itself
                    torch.onnx.export(
                        module,
                        example_inputs,
                        str(path),
                        dynamo=dynamo,
                        external_data=True,
                        verbose=False,
                    )
            except Exception as error:
                logger.debug("export with dynamo=%s failed", dynamo, exc_info=True)
                lines = str(error).strip().splitlines() or [""]
                failures.append(f"{type(error).__name__}: {lines[0]}"[:150])
            else:
                return name.lower()
    finally:
        module.train(was_training)
    raise ModelError(
        f"torch cannot export it ({' / '.join(failures)})",
        where=name,
        hint="export it to ONNX yourself and pass the path",
    )
