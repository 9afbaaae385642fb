"""Model inputs in a file: an .npz whose members carry any name an input may have."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .session import Array


def save_feeds(path: Path, feeds: Mapping[str, Array]) -> None:
    """Writes one array for every input.

    `numpy.savez` takes names as keywords and so cannot store an input called "file".
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in feeds.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
