"""A process of its own for a TensorRT library, so that its crash is an error of ours.

A parser or a builder is native code that reads a file a stranger may have written, and a
build can take more memory than there is. What ends the child ends nothing else.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from ...device_profiles.errors import EngineBuildFailed
from .libraries import Library

WORKER = "nncc.runtime.tensorrt.worker"
LONGEST_LINE = 1 << 20
MOST_LINES = 100_000
LONGEST_SAID = 400


@dataclass(frozen=True)
class Answer:
    """What the child told before it ended well."""

    fields: Mapping[str, Any]


def ask(
    library: Library,
    request: Mapping[str, object],
    *,
    where: str,
    timeout_seconds: float,
    on_event: Callable[[str], None],
) -> Answer:
    """The child's answer to one request.

    Args:
        library: which library it loads.
        request: plain JSON values.
        where: what the request is about, for errors.
        timeout_seconds: a child that takes longer is ended.
        on_event: hears every step the child tells of.

    Raises:
        EngineBuildFailed: it said why it cannot, crashed, was killed or took too long.
    """
    command = [sys.executable, "-P", "-m", WORKER]
    environment = {
        **os.environ,
        # polygraphy chooses its library once, when it is imported.
        "POLYGRAPHY_USE_TENSORRT_RTX": "1" if library.is_rtx else "0",
        "POLYGRAPHY_AUTOINSTALL_DEPS": "0",
        "PYTHONFAULTHANDLER": "",
    }
    asked = {**request, "module": library.module, "parent": os.getpid()}
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches us alone, and we end the child
            )
        except OSError as error:
            raise EngineBuildFailed(
                f"a process for {library.title} could not start ({error.strerror})",
                where=where,
                hint="check free memory and the limit on processes",
            ) from error
        late = threading.Event()
        timer = threading.Timer(timeout_seconds, _too_late, (process, late))
        timer.daemon = True
        timer.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps(asked).encode())
            answer = _listen(process.stdout, on_event)
            process.wait()
        finally:
            timer.cancel()
            _end(process)
        if late.is_set():
            raise EngineBuildFailed(
                f"{library.title} took over {timeout_seconds:g} s",
                where=where,
                hint="use a smaller model or narrower shapes",
            )
        return _judged(answer, process.returncode, errors, library, where)


def _listen(stream: IO[bytes], on_event: Callable[[str], None]) -> dict[str, Any]:
    """The last answer on the stream; events are passed on. Nothing else is believed."""
    answer: dict[str, Any] = {}
    for _ in range(MOST_LINES):
        line = stream.readline(LONGEST_LINE)
        if not line:
            break
        try:
            said: object = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(said, dict):
            continue
        fields = cast("dict[str, Any]", said)
        if isinstance(fields.get("event"), str):
            on_event(shown(fields["event"]))
        else:
            answer = fields
    return answer


def _judged(
    answer: dict[str, Any], code: int, errors: IO[bytes], library: Library, where: str
) -> Answer:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        raise EngineBuildFailed(
            f"{library.title} was ended by {name}{_last_line(errors)}",
            where=where,
            hint="there may not be enough memory: free some, or build elsewhere"
            if name == "SIGKILL"
            else "this is a fault of the library: update it, or report it with the model",
        )
    failed = answer.get("failed")
    if isinstance(failed, str):
        hint = answer.get("hint")
        raise EngineBuildFailed(
            f"{library.title}: {shown(failed)}",
            where=where,
            hint=shown(hint) if isinstance(hint, str) else "",
        )
    if code != 0 or not answer:
        raise EngineBuildFailed(
            f"{library.title} gave no answer (exit code {code}){_last_line(errors)}",
            where=where,
            hint=f"reinstall it: pip install --force-reinstall {library.name}",
        )
    return Answer(answer)


def shown(text: str) -> str:
    r"""One printable line of bounded length.

    Example:
        >>> shown("a\n  b\x1b[1m")
        'a b [1m'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST_SAID else line[: LONGEST_SAID - 3] + "..."


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(errors.tell() - 4096, 0))
    lines = errors.read().decode("utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f": {shown(last)}" if last else ""


def _too_late(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    _kill(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Nothing of the process is left, whatever interrupted us."""
    if process.poll() is None:
        _kill(process)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (OSError, AttributeError):  # gone meanwhile; or no groups on this system
        process.kill()
