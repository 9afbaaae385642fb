"""Devices of a person's own: TOML files in one folder of theirs."""

import os
import re
import tempfile
from pathlib import Path

from .errors import UsageError
from .toml_file import MOST_BYTES

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}[a-z0-9]|[a-z0-9]")
MOST_FILES = 1000


def user_folder() -> Path:
    """Where a person's own profiles stand.

    $NNCC_TARGETS_DIR, else nncc/targets in $XDG_CONFIG_HOME, else in ~/.config.
    """
    if asked := os.environ.get("NNCC_TARGETS_DIR"):
        return Path(asked)
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "nncc" / "targets"


def user_files() -> dict[str, Path]:
    """Name to file of the person's own profiles, sorted; a folder that is not there has none.

    Files whose names cannot be a target's are left out.
    """
    try:
        found = sorted(user_folder().glob("*.toml"))[:MOST_FILES]
    except OSError:
        return {}
    return {path.stem: path for path in found if NAME.fullmatch(path.stem)}


def checked_name(name: str) -> str:
    """The name, where a target may be called so.

    Raises:
        UsageError: it has other letters, or would be a path.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a device",
            where="--name",
            hint="use up to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit at both ends",
        )
    return name


def save(text: bytes, name: str, *, replace: bool = False) -> Path:
    """Puts a profile's text into the person's folder, in one step, and returns its file.

    Args:
        text: a checked TOML file.
        name: as `checked_name` returns it.
        replace: whether a file of that name may be replaced.

    Raises:
        UsageError: a file of that name exists, or the folder cannot be written.
    """
    assert len(text) <= MOST_BYTES
    folder = user_folder()
    path = folder / f"{checked_name(name)}.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, draft_name = tempfile.mkstemp(
            prefix=f".{name}.", suffix=".nncc-new", dir=folder
        )
        draft = Path(draft_name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
            draft.chmod(0o644)
            if replace:
                draft.replace(path)
            else:
                os.link(draft, path)  # unlike a rename, fails where the name is taken
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError as error:
        raise UsageError(
            "exists", where=str(path), hint="give another --name, or --force to replace it"
        ) from error
    except OSError as error:
        raise UsageError(
            f"cannot be written ({error.strerror})",
            where=str(path),
            hint="set NNCC_TARGETS_DIR to a folder of yours",
        ) from error
    return path
