"""A compiled model into a folder as model.onnx (+ model.onnx.data), whatever its files' names.

A file without external data is copied as it is. Otherwise the weights of all its data files
go, streamed, into one model.onnx.data, and the graph's references follow; no weight is held in
memory.
"""

import mmap
import os
import shutil
from pathlib import Path

from ...device_profiles.errors import ModelError

MODEL, DATA = "model.onnx", "model.onnx.data"
# StringStringEntryProto.key = "location": field 1, length 8. Every external tensor has one.
LOCATION = b"\x0a\x08location"
ALIGN = 4096


def place_model(compiled: Path, folder: Path) -> None:
    """`folder`/model.onnx and its data, from the compiled file.

    Raises:
        ModelError: a data file is missing or lies outside the compiled file's folder.
    """
    if not _may_be_external(compiled):
        shutil.copyfile(compiled, folder / MODEL)
        return
    from onnx import TensorProto

    from ...runtime.weight_files import read_structure, tensors

    model = read_structure(compiled)
    starts: dict[str, int] = {}
    for tensor in tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry for entry in tensor.external_data}
        location = entries["location"].value
        if location not in starts:
            starts[location] = _append(compiled, location, folder / DATA)
        entries["location"].value = DATA
        if starts[location]:
            offset = entries.get("offset")
            if offset is None:
                offset = tensor.external_data.add(key="offset", value="0")
            offset.value = str(int(offset.value) + starts[location])
    (folder / MODEL).write_bytes(model.SerializeToString(deterministic=True))


def _may_be_external(path: Path) -> bool:
    """Whether the file may refer to external data; looks at bytes, so that none is parsed."""
    if path.stat().st_size == 0:
        return False
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held,
    ):
        return held.find(LOCATION) >= 0


def _append(compiled: Path, location: str, data: Path) -> int:
    """Where in `data` the bytes of the named file now begin."""
    from ...runtime.weight_files import inside

    source = inside(compiled.parent, location)
    if source is None or not source.is_file():
        raise ModelError(
            f"external data {location!r} is not a file beside the model",
            where=str(compiled),
            hint="keep the data files in the model's folder",
        )
    with data.open("ab") as to, source.open("rb") as held:
        start = -(-to.tell() // ALIGN) * ALIGN
        os.ftruncate(to.fileno(), start)
        shutil.copyfileobj(held, to, 1 << 22)
    return start
