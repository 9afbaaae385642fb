"""The outside of an ONNX file: is it one at all, whole, and not built to hurt its reader?

Parsers recurse with the nesting of a message and allocate a little for every message in it. So
the bytes are walked here first, with a stack of our own and nothing allocated: nesting,
lengths, text encoding and the number of messages are known before a parser sees the file.
"""

import mmap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor

from ...device_profiles.errors import ModelError, UsageError

PROTOBUF_LIMIT = 2**31 - 1
MAX_DEPTH = 96
"""Messages inside messages; protobuf itself stops at 100. An If body adds three."""
MAX_MESSAGES = 4_000_000
MAX_FIELDS = 40_000_000

_EXPORT_AGAIN = "export or download it again"
_OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer", "run git lfs pull"),
    (b"PK\x03\x04", "a zip archive (a torch checkpoint?)", "export the model to ONNX first"),
    (b"\x80\x02", "a pickle", "export the model to ONNX first"),
    (b"\x89HDF", "an HDF5 file (a Keras model?)", "convert it to ONNX first"),
    (b"\x1f\x8b", "gzip data", "unpack it first"),
    (b"<", "text (an HTML or XML page?)", _EXPORT_AGAIN),
    (b"{", "text (JSON?)", "give the binary .onnx file"),
)

Table = dict[int, "_Field"]


@dataclass(frozen=True)
class _Field:
    """What a length-delimited field of a message holds.

    Args:
        name: for messages to people.
        inside: the table of the message it holds, None for bytes and text.
        is_text: whether it must be UTF-8.
    """

    name: str
    inside: str | None
    is_text: bool


def check_wire(path: Path) -> None:
    """Refuses a file that is not a complete ONNX protobuf of sane nesting.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        ModelError: it is empty, truncated, something else, or nested beyond MAX_DEPTH.
    """
    where = str(path)
    if not path.exists():
        raise UsageError("no such file", where=where, hint="check the path")
    if not path.is_file():
        raise UsageError("is not a regular file", where=where, hint="give an .onnx file")
    size = path.stat().st_size
    if size == 0:
        raise ModelError("the file is empty", where=where, hint=_EXPORT_AGAIN)
    if size > PROTOBUF_LIMIT:
        raise ModelError(
            f"{size:,} bytes are more than a protobuf file holds (2 GiB)",
            where=where,
            hint="save the model with external data",
        )
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            for sign, what, hint in _OTHER_FILES:
                if data[: len(sign)] == sign:
                    raise ModelError(f"this is {what}, not ONNX", where=where, hint=hint)
            _walk(data, size, where)
    except OSError as error:
        raise UsageError(
            f"cannot be read ({error.strerror})", where=where, hint="check its permissions"
        ) from error


def _walk(data: mmap.mmap, size: int, where: str) -> None:
    """One pass over the bytes: `stack` holds where each open message ends and what it is."""
    tables = _tables()
    stack: list[tuple[int, Table]] = []
    end, table = size, tables[onnx.ModelProto.DESCRIPTOR.full_name]
    position = messages = fields = 0

    def broken(what: str, at: int) -> ModelError:
        return ModelError(
            f"{what} at byte {at:,} of {size:,}", where=where, hint=_EXPORT_AGAIN
        )

    while True:
        while position == end:
            if not stack:
                return
            end, table = stack.pop()
        start = position
        tag, position = _varint(data, position, end)
        wire = tag & 7
        fields += 1
        if position < 0 or tag < 8 or wire in (3, 4, 6, 7):
            raise broken("not an ONNX file: no field starts", start)
        if wire == 2:
            length, position = _varint(data, position, end)
            if position < 0 or length > end - position:
                raise broken("the file is truncated: a field does not end", start)
            field = table.get(tag >> 3)
            if field is None:
                position += length
            elif field.inside is not None:
                messages += 1
                stack.append((end, table))
                end, table = position + length, tables[field.inside]
                if len(stack) > MAX_DEPTH:
                    depth = (
                        f"more than {MAX_DEPTH} levels deep (bodies of If and Loop add 3 each)"
                    )
                    raise ModelError(
                        f"messages are nested {depth}",
                        where=where,
                        hint="flatten the control flow and export again",
                    )
            else:
                if field.is_text:
                    try:
                        data[position : position + length].decode()
                    except UnicodeDecodeError:
                        raise broken(
                            f"the text in '{field.name}' is not UTF-8", start
                        ) from None
                position += length
        else:
            if wire == 0:
                _, position = _varint(data, position, end)
            else:
                position += 8 if wire == 1 else 4
            if position < 0 or position > end:
                raise broken("the file is truncated: a field does not end", start)
        if messages > MAX_MESSAGES or fields > MAX_FIELDS:
            raise ModelError(
                f"more than {MAX_MESSAGES:,} messages or {MAX_FIELDS:,} fields",
                where=where,
                hint="no exporter writes this; " + _EXPORT_AGAIN,
            )


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """A base-128 number and the position after it; position -1 where it does not end."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    return 0, -1


@cache
def _tables() -> dict[str, Table]:
    """Message name to its length-delimited fields, for everything a ModelProto can hold."""
    tables: dict[str, Table] = {}
    waiting = [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.full_name in tables:
            continue
        tables[message.full_name] = table = {}
        for field in message.fields:
            inside = field.message_type if field.type == FieldDescriptor.TYPE_MESSAGE else None
            if inside is not None:
                waiting.append(inside)
            if inside is not None or field.type == FieldDescriptor.TYPE_STRING:
                table[field.number] = _Field(
                    f"{message.name}.{field.name}",
                    None if inside is None else inside.full_name,
                    inside is None,
                )
    return tables
