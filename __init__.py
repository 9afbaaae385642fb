"""nncc: compile a trained ONNX model into a smaller, faster one for a named device.

>>> import nncc
>>> artifact = nncc.compile("model.onnx", target="jetson-nano", macs="33%")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compiler.api import compile as compile  # noqa: A004
    from .compiler.options import CompileOptions as CompileOptions
    from .compiler.writing.artifact import Artifact as Artifact
    from .device_profiles import errors as errors
    from .device_profiles.errors import NnccError as NnccError

__version__ = "0.1.0"

# Name to module: loaded at first use, so that `import nncc` costs nothing.
_EXPORTS = {
    "compile": "compiler.api",
    "Artifact": "compiler.writing.artifact",
    "CompileOptions": "compiler.options",
    "NnccError": "device_profiles.errors",
    "errors": "device_profiles",
}
__all__ = ["Artifact", "CompileOptions", "NnccError", "__version__", "compile", "errors"]


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name == "errors":
        return import_module(".device_profiles.errors", __name__)
    return getattr(import_module(f".{_EXPORTS[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
