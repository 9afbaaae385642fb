"""The cache on disk: small arrays by content digest, never trusted and never half-written."""

import logging
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

logger = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[np.generic]]


def cache_folder() -> Path:
    """Where nncc keeps what it can compute again: $NNCC_CACHE_DIR, or the user's cache."""
    named = os.environ.get("NNCC_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nncc"


def read_arrays(key: str, kind: str) -> Arrays | None:
    """The arrays stored under a digest, or None; a broken entry counts as absent."""
    path = cache_folder() / kind / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        logger.warning("cache entry %s is unreadable and is made again: %s", path, error)
        return None


def write_arrays(key: str, kind: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Stores arrays under a digest; a cache that cannot be written is only a warning."""
    folder = cache_folder() / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            Path(name).replace(folder / f"{key}.npz")
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        logger.warning("the cache at %s cannot be written: %s", folder, error)
