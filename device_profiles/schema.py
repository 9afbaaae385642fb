"""The layout of a device's TOML file: every fact stands with its source.

A fact is `{ value = ..., source = "..." }`. Unknown keys, missing sources and values of the
wrong type are refused with the file and the key.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UsageError
from .profile import Runtime

T = TypeVar("T")
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]

# Facts that a file either carries or leaves to detection.
DETECTED = ("max_opset", "max_ir_version", "rank_step", "group_width", "memory_bytes")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Fact(_Table, Generic[T]):
    """One thing that is known of a device, and from where."""

    value: T
    source: Text


class Facts(_Table):
    """What nncc decides by; see `DeviceProfile` for the meaning of each."""

    operators: Fact[list[Text] | Literal["any"]]
    dtypes: Fact[list[Text]]
    precisions: Fact[list[Literal["fp32", "fp16", "int8"]]]
    build_weight_copies: Fact[Count]
    build_workspace_bytes: Fact[Annotated[int, Field(ge=0)]]
    runtime_version: Fact[Text] | None = None
    max_opset: Fact[Annotated[int, Field(ge=7)]] | None = None
    max_ir_version: Fact[Annotated[int, Field(ge=3)]] | None = None
    rank_step: Fact[Count] | None = None
    group_width: Fact[Count] | None = None
    memory_bytes: Fact[Count] | None = None


class ProfileFile(_Table):
    """A whole TOML file. With `detected`, the facts of `DETECTED` are found on the machine."""

    title: Text
    runtime: Runtime
    facts: Facts
    aliases: list[Text] = []
    detected: bool = False
    about: dict[Text, Fact[Text]] = {}


def read(path: Path) -> ProfileFile:
    """The checked content of a device's TOML file.

    Raises:
        UsageError: not TOML, or a key is missing, unknown or of the wrong type; names the file
            and the key.
    """
    try:
        with path.open("rb") as file:
            content = ProfileFile.model_validate(tomllib.load(file))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not TOML: {error}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{key}: {first['msg'].lower()}",
            where=str(path),
            hint='a fact reads key = { value = ..., source = "..." }',
        ) from error
    written = [key for key in DETECTED if getattr(content.facts, key) is not None]
    if content.detected and written:
        raise UsageError(
            f"facts.{written[0]}: is detected on the machine and written here",
            where=str(path),
            hint="remove it, or remove detected = true",
        )
    return content
