"""Which TensorRT is installed: TensorRT-RTX, which builds without a card, or TensorRT proper.

Nothing is imported here: either library is a quarter of a gigabyte, and is loaded only by the
process that uses it.
"""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ...device_profiles.errors import MissingExtra

EXTRA = "rtx"
HINT = f"pip install 'nncc[{EXTRA}]'"


@dataclass(frozen=True)
class Library:
    """An installed TensorRT library.

    Args:
        name: its project: "tensorrt-rtx" or "tensorrt".
        module: what Python imports.
        version: as installed.
    """

    name: str
    module: str
    version: str

    @property
    def title(self) -> str:
        """Name and version, as people write them.

        Example:
            >>> Library("tensorrt-rtx", "tensorrt_rtx", "1.7.1.116").title
            'TensorRT-RTX 1.7.1.116'
        """
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, which takes the precision from the graph."""
        return self.module == "tensorrt_rtx"


def rtx() -> Library | None:
    """TensorRT-RTX, where it is installed."""
    return _found("tensorrt_rtx", ("tensorrt-rtx", "tensorrt_rtx_cu13", "tensorrt_rtx_cu12"))


def classic() -> Library | None:
    """TensorRT proper, where it is installed; its builder wants a card."""
    return _found("tensorrt", ("tensorrt", "tensorrt_cu13", "tensorrt_cu12"))


def installed() -> Library | None:
    """TensorRT-RTX if there is one, else TensorRT, else None."""
    return rtx() or classic()


def needed(library: Library | None, purpose: str) -> Library:
    """The library, or the error that names the extra to install.

    Args:
        library: what was found.
        purpose: what it is needed for, e.g. "build an engine".

    Raises:
        MissingExtra: none is installed, or polygraphy, which drives it, is not.
    """
    if library is None:
        raise MissingExtra(
            f"tensorrt-rtx is not installed, so nncc cannot {purpose}", hint=HINT
        )
    if find_spec("polygraphy") is None:
        raise MissingExtra(f"polygraphy is not installed, so nncc cannot {purpose}", hint=HINT)
    return library


def _found(module: str, projects: tuple[str, ...]) -> Library | None:
    if find_spec(module) is None:
        return None
    for project in projects:
        try:
            return Library(projects[0], module, version(project))
        except PackageNotFoundError:
            continue
    return None
