"""An engine from a model, built by a fresh process; the file appears when it is complete."""

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ...device_profiles.errors import EngineBuildFailed, UsageError
from ..weight_files import digest
from .child import ask, shown
from .facts import EngineFacts, Precision, Sizes
from .libraries import Library, installed, needed
from .parsing import findings


def _silent(event: str) -> None:
    del event


def build_engine(
    path: Path,
    out: Path,
    *,
    precision: Precision = "fp16",
    shapes: Mapping[str, Sizes] | None = None,
    capabilities: Sequence[str] = (),
    library: Library | None = None,
    workspace_bytes: int = 0,
    timeout_seconds: float = 3600,
    on_event: Callable[[str], None] = _silent,
) -> EngineFacts:
    """Builds an engine file.

    TensorRT-RTX computes what the graph says, so `precision` must be that of the graph there;
    an older TensorRT with precision flags is given the flag. The same model, builder and
    request give the same file.

    Args:
        path: the .onnx file; external data lies beside it.
        out: the engine's file; its folder exists.
        precision: what it computes in.
        shapes: (minimum, optimum, maximum) sizes of every input with a free axis.
        capabilities: compute capabilities to build for, e.g. ("8.6", "8.9"); of TensorRT the
            card's own, whatever is given.
        library: the builder; TensorRT-RTX where None, else TensorRT.
        workspace_bytes: limit of the builder's scratch memory; 0 leaves its default.
        timeout_seconds: a build that takes longer is ended.
        on_event: hears every step of the builder.

    Raises:
        MissingExtra: no library is installed.
        EngineBuildFailed: the parser or the builder refuses; names the node where it is told.
        UsageError: the file cannot be written.
    """
    held = needed(library or installed(), "build an engine")
    profile = dict(shapes or {})
    capabilities = tuple(capabilities) if held.is_rtx else ()
    if not out.parent.is_dir():
        raise UsageError("its folder does not exist", where=str(out), hint="make it first")
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    begin = time.perf_counter()
    try:
        answer = ask(
            held,
            {
                "job": "build",
                "model": str(path.resolve()),
                "out": str(draft.resolve()),
                "precision": precision,
                "shapes": {name: [list(s) for s in sizes] for name, sizes in profile.items()},
                "capabilities": list(capabilities),
                "workspace_bytes": workspace_bytes,
            },
            where=str(path),
            timeout_seconds=timeout_seconds,
            on_event=on_event,
        ).fields
        refused = findings(answer.get("errors", []))
        if refused:
            told = "; ".join(f"{f.node or 'the model'} ({f.op}) {f.reason}" for f in refused)
            raise EngineBuildFailed(
                f"the parser of {held.title} refuses {told}",
                where=str(path),
                hint="re-export the model without these operators",
            )
        if not draft.is_file():
            raise EngineBuildFailed(
                f"{held.title} wrote no engine",
                where=str(path),
                hint=f"reinstall it: pip install --force-reinstall {held.name}",
            )
        with draft.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        draft.replace(out)
    except OSError as error:
        raise UsageError(
            f"cannot be written ({error.strerror})", where=str(out), hint="check the folder"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
    return EngineFacts(
        path=out,
        bytes=out.stat().st_size,
        sha256=sha256,
        seconds=round(time.perf_counter() - begin, 3),
        library=held.name,
        version=shown(str(answer.get("version", held.version))),
        precision=precision,
        capabilities=capabilities,
        shapes=profile,
        fingerprint=fingerprint(path, held, precision, profile, capabilities),
        warnings=tuple(shown(str(line)) for line in answer.get("warnings", [])),
    )


def fingerprint(
    path: Path,
    library: Library,
    precision: Precision,
    shapes: Mapping[str, Sizes],
    capabilities: Sequence[str],
) -> str:
    """What tells one engine from another before it is built; a folder's name.

    The builder and its version, the precision, and a digest of these with the model's bytes,
    shapes and compute capabilities.
    """
    words = json.dumps(
        [
            digest(path),
            library.name,
            library.version,
            precision,
            sorted((name, [list(s) for s in sizes]) for name, sizes in shapes.items()),
            sorted(capabilities),
        ]
    )
    short = hashlib.sha256(words.encode()).hexdigest()[:12]
    return f"{library.name}-{library.version}-{precision}-{short}"
