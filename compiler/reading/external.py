"""External data: weights beside the model file, inside its folder, read only when needed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnx_ir as ir

from ...device_profiles.errors import ModelError

_ALLOWED = "keep the data file in the model's own folder, as a real file"


def external_file(tensor: onnx.TensorProto, folder: Path, where: str, needed: int) -> Path:
    """The data file of an external tensor, proven to lie in `folder` and to be long enough.

    Args:
        tensor: a tensor stored as external data.
        folder: the model's folder.
        where: the tensor, for messages.
        needed: bytes that its shape and type take.

    Raises:
        ModelError: the path is absolute or leaves the folder, also by a symbolic link; the
            file is missing; or the tensor's bytes do not lie in it.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not location:
        raise ModelError("external data without a location", where=where, hint="export again")
    relative = Path(location)
    if relative.is_absolute() or location[:1] in "\\/" or location[1:2] == ":":
        raise ModelError(
            f"external data at the absolute path '{location[:200]}'",
            where=where,
            hint=_ALLOWED,
        )
    if ".." in location.replace("\\", "/").split("/") or "\0" in location:
        raise ModelError(
            f"external data at '{location[:200]}' leaves the folder",
            where=where,
            hint=_ALLOWED,
        )
    try:
        path = (folder / relative).resolve()
        inside = path.is_relative_to(folder.resolve())
        size = path.stat().st_size if inside and path.is_file() else -1
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"external data at '{location[:200]}' cannot be read", where=where, hint=_ALLOWED
        ) from error
    if not inside:
        raise ModelError(
            f"external data at '{location[:200]}' is a link out of the folder",
            where=where,
            hint=_ALLOWED,
        )
    if size < 0:
        raise ModelError(
            f"external data file '{location[:200]}' is missing", where=where, hint=_ALLOWED
        )
    offset = _number(entries.get("offset", "0"), "offset", where)
    length = _number(entries.get("length", str(needed)), "length", where)
    if length != needed:
        raise ModelError(
            f"{length:,} bytes of external data for a shape and type of {needed:,} bytes",
            where=where,
            hint="export the model again",
        )
    if offset + length > size:
        raise ModelError(
            f"external data ends at byte {offset + length:,}, its file at byte {size:,}",
            where=where,
            hint="the data file is truncated or not the model's: copy it again",
        )
    return path


def lazily(tensor: ir.ExternalTensor, path: Path) -> ir.ExternalTensor:
    """The tensor mapped from the checked file `path`, whatever the working folder is later."""
    return ir.ExternalTensor(
        str(path),
        tensor.offset or 0,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def digest(path: Path, external: Iterable[Path]) -> str:
    """sha256 of the file, and of its external data files in order of name; streamed.

    Without external data it is the plain sha256 of the file.
    """
    total = hashlib.sha256()
    for file in (path, *sorted(external)):
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                total.update(block)
    return total.hexdigest()


def _number(text: str, what: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelError(
            f"external data {what} '{text[:40]}' is not a size",
            where=where,
            hint="export the model again",
        )
    return int(text)
