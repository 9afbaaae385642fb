"""The output folder: may it be written, and how a finished one takes its place.

A compile is long and a folder is easily lost, so the answer comes before the work
(`check_output`), and the exchange is two renames (`replace_folder`): whoever looks sees the
old folder or the new one, never half of either.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from ...device_profiles.errors import UsageError

MARKS = ("manifest.json", "metrics.json")


def is_artifact(path: Path) -> bool:
    """Whether the folder looks like one that nncc wrote."""
    return all((path / name).is_file() for name in MARKS)


def check_output(path: Path, force: bool, *, keep: Iterable[Path] = ()) -> None:
    """Nothing, where the folder may be written; an error where it may not.

    Args:
        path: the output folder; need not exist.
        force: whether a folder that holds something may be replaced.
        keep: files that must survive (the input model, calibration data).

    Raises:
        UsageError: the path is a file, cannot be written, holds something without `force`, or
            is one that is never replaced (a root, home or current folder, one that holds an
            input, a repository or a mount).
    """
    where = f"--output {path}"
    real = path.resolve()
    if real.exists() and not real.is_dir():
        raise UsageError("is a file, not a folder", where=where, hint="choose another -o DIR")
    reason = _precious(real, keep)
    if reason and (not real.exists() or any(real.iterdir())):
        raise UsageError(
            f"will not be replaced, {reason}", where=where, hint="choose another -o DIR"
        )
    if real.is_dir() and any(real.iterdir()) and not force:
        what = "an nncc artifact" if is_artifact(real) else "files that nncc did not write"
        raise UsageError(
            f"the folder holds {what}",
            where=where,
            hint="choose another -o DIR, or --force to replace it",
        )
    above = next(p for p in (real, *real.parents) if p.exists())
    if not above.is_dir():
        raise UsageError(f"{above} is a file", where=where, hint="choose another -o DIR")
    if not os.access(above if above != real else real.parent, os.W_OK | os.X_OK):
        raise UsageError("cannot be written here", where=where, hint="choose another -o DIR")


@contextmanager
def new_folder(path: Path) -> Generator[Path]:
    """A hidden folder beside `path` to build in; removed unless the body renames it."""
    real = path.resolve()
    real.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(real, "new")
    fresh.mkdir()
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def replace_folder(fresh: Path, path: Path) -> None:
    """`fresh` in the place of `path`; the old folder comes back if that fails."""
    real = path.resolve()
    if not real.exists():
        fresh.rename(real)
        return
    old = _beside(real, "old")
    real.rename(old)
    try:
        fresh.rename(real)
    except BaseException:
        old.rename(real)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(real: Path, what: str) -> Path:
    return real.parent / f".{real.name}.nncc-{what}-{secrets.token_hex(4)}"


def _precious(real: Path, keep: Iterable[Path]) -> str:
    """Why the folder is never replaced, empty where it may be."""
    cwd = Path.cwd()
    if real == Path(real.anchor):
        return "it is the root folder"
    with contextlib.suppress(RuntimeError):
        if Path.home().resolve().is_relative_to(real):
            return "it is or holds the home folder"
    if cwd.is_relative_to(real):
        return "it is or holds the current folder"
    if real.is_mount():
        return "it is a mount point"
    if (real / ".git").exists():
        return "it is a git repository"
    for path in keep:
        if path.resolve().is_relative_to(real):
            return f"it holds the input {path.name}"
    return ""
