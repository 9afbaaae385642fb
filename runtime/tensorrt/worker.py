"""One fresh process that holds a TensorRT library: parses a model, or builds its engine.

`python -m nncc.runtime.tensorrt.worker` reads one JSON request on stdin and writes JSON lines
on stdout: {"event": "..."} for every step, at the end the answer: {"errors": [...],
"warnings": [...], "version": "..."}, or {"failed": "...", "hint": "..."}.

TensorRT 8.6 to 11 and TensorRT-RTX differ in flags: what a library lacks is not asked of it.
polygraphy knows how profiles, flags and memory limits are said to each of them.
"""

import json
import os
import re
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, TypeAlias

MOST_WARNINGS = 20
Native: TypeAlias = Any
"""An object of a native library; those carry no types that hold for every version."""


class Failed(Exception):
    """The library said no; internal, becomes an answer."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what, self.hint = what, hint


class Worker:
    """One request in one process.

    Args:
        request: as `child.ask` wrote it.
        stream: where JSON lines go.
    """

    def __init__(self, request: dict[str, Any], stream: IO[str]) -> None:
        self.request, self.stream = request, stream
        self.said: dict[str, list[str]] = {"error": [], "warning": []}
        # Native code: the module is known when the request is read, and carries no types.
        self.trt: Native = import_module(str(request["module"]))
        self.logger = self._logger()

    def tell(self, **fields: object) -> None:
        """One line to whoever started us; nobody may be left to hear it."""
        with suppress(BrokenPipeError):
            self.stream.write(json.dumps(fields) + "\n")
            self.stream.flush()

    def run(self) -> dict[str, object]:
        """The answer."""
        builder = self.trt.Builder(self.logger)
        network = self._network(builder)
        errors = self._parsed(network)
        answer: dict[str, object] = {"version": str(self.trt.__version__), "errors": errors}
        if not errors and self.request["job"] == "build":
            self._build(builder, network)
        answer["warnings"] = list(dict.fromkeys(self.said["warning"]))[:MOST_WARNINGS]
        return answer

    def _logger(self) -> Native:
        said, severity = self.said, self.trt.ILogger
        base: type[Native] = severity

        class Listener(base):
            """Keeps what the library complains of, instead of printing it."""

            def __init__(self) -> None:
                base.__init__(self)

            def log(self, level: Native, message: str) -> None:
                if level in (severity.ERROR, severity.INTERNAL_ERROR):
                    said["error"].append(message)
                elif level == severity.WARNING:
                    said["warning"].append(message)

        return Listener()

    def _network(self, builder: Native) -> Native:
        """An empty network: typed by the graph where the builder has no precision flags."""
        kinds: Native = self.trt.NetworkDefinitionCreationFlag
        flags = 0
        if hasattr(kinds, "EXPLICIT_BATCH"):
            flags |= 1 << int(kinds.EXPLICIT_BATCH)
        if not self._has_flag("FP16") and hasattr(kinds, "STRONGLY_TYPED"):
            flags |= 1 << int(kinds.STRONGLY_TYPED)
        return builder.create_network(flags)

    def _has_flag(self, name: str) -> bool:
        return hasattr(self.trt.BuilderFlag, name)

    def _parsed(self, network: Native) -> list[dict[str, str]]:
        """Parses into `network`; every error as plain fields."""
        self.tell(event="parse")
        if hasattr(self.trt, "init_libnvinfer_plugins"):
            self.trt.init_libnvinfer_plugins(self.logger, "")
        self.parser = self.trt.OnnxParser(network, self.logger)  # owns the weights
        taken = self.parser.parse_from_file(self.request["model"])
        errors = [
            self._error(self.parser.get_error(at)) for at in range(self.parser.num_errors)
        ]
        if not taken and not errors:
            last = self.said["error"][-1] if self.said["error"] else "no reason given"
            errors = [{"node": "", "op": "", "desc": last, "code": ""}]
        if taken and not network.num_outputs:  # an empty file is an empty model
            return [{"node": "", "op": "", "desc": "has no outputs", "code": ""}]
        return errors if not taken else []

    def _error(self, error: Native) -> dict[str, str]:
        def ask(name: str) -> str:  # node_name and node_operator came with TensorRT 8.6
            method = getattr(error, name, None)
            return str(method()) if callable(method) else ""

        whole = str(error)
        code = re.search(r"\b([A-Z]+(?:_[A-Z]+)+): ", whole)
        return {
            "node": ask("node_name"),
            "op": ask("node_operator"),
            "desc": ask("desc") or whole,
            "code": code[1] if code else ask("code"),
        }

    def _build(self, builder: Native, network: Native) -> None:
        """Writes the engine to the file asked for."""
        config = self._config(builder, network)
        self.tell(event="build")
        self.said["error"].clear()
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise Failed(*_explained(self.said["error"]))
        self.tell(event="write")
        with Path(self.request["out"]).open("wb") as file:
            file.write(memoryview(engine))

    def _config(self, builder: Native, network: Native) -> Native:
        from_polygraphy: Native = import_module("polygraphy.backend.trt")
        profile = self._profile(network, from_polygraphy)
        options: dict[str, Any] = {"profiles": [profile] if profile is not None else []}
        limit = int(self.request["workspace_bytes"])
        if limit:
            options["memory_pool_limits"] = {self.trt.MemoryPoolType.WORKSPACE: limit}
        if hasattr(self.trt, "IProgressMonitor"):
            options["progress_monitor"] = self._monitor()
        if hasattr(self.trt, "ComputeCapability"):
            options["compute_capabilities"] = self._capabilities()
            create = import_module("polygraphy.backend.tensorrt_rtx").CreateConfigRTX
        else:
            precision = self.request["precision"]
            for flag in ("fp16", "int8"):
                options[flag] = precision == flag and self._has_flag(flag.upper())
            create = from_polygraphy.CreateConfig
        return create(**options)(builder, network)

    def _capabilities(self) -> list[tuple[int, int]]:
        known = self.trt.ComputeCapability.__members__
        asked: list[tuple[int, int]] = []
        for text in self.request["capabilities"]:
            major, _, minor = str(text).partition(".")
            if f"SM{major}{minor}" not in known:
                listed = sorted(
                    (k for k in known if k.startswith("SM")), key=lambda k: int(k[2:])
                )
                there = ", ".join(f"{k[2:-1]}.{k[-1]}" for k in listed)
                raise Failed(
                    f"does not build for compute capability {text}", f"choose from {there}"
                )
            asked.append((int(major), int(minor)))
        if not asked:
            raise Failed("was given no compute capability", "name one, e.g. 8.6")
        return asked

    def _profile(self, network: Native, from_polygraphy: Native) -> Native:
        """One optimisation profile of all inputs with a free axis; None if none has."""
        profile = from_polygraphy.Profile()
        shapes = self.request["shapes"]
        has_free = False
        for at in range(network.num_inputs):
            tensor = network.get_input(at)
            if -1 not in tuple(tensor.shape) and not tensor.is_shape_tensor:
                continue
            if tensor.name not in shapes:
                raise Failed(
                    f"input {tensor.name!r} is {list(tensor.shape)}: its sizes are free",
                    f"give them: --shape {tensor.name}:MIN:OPT:MAX",
                )
            low, best, high = (tuple(sizes) for sizes in shapes[tensor.name])
            profile.add(tensor.name, min=low, opt=best, max=high)
            has_free = True
        return profile if has_free else None

    def _monitor(self) -> Native:
        base, worker = self.trt.IProgressMonitor, self

        class Monitor(base):
            """Tells of every phase, and stops a build that nobody waits for."""

            def __init__(self) -> None:
                base.__init__(self)

            def phase_start(self, name: str, parent: str | None, steps: int) -> None:
                del steps
                if parent is None:
                    worker.tell(event=name)

            def step_complete(self, name: str, step: int) -> bool:
                del name, step
                return os.name != "posix" or os.getppid() == worker.request["parent"]

            def phase_finish(self, name: str) -> None:
                del name

        return Monitor()


def _explained(errors: list[str]) -> tuple[str, str]:
    """The builder's last complaint without its source positions, and what to do."""
    said = next(
        (e for e in reversed(errors) if e.strip()), "the build failed without a reason"
    )
    text = re.sub(r"^\S+: Error Code \d+: ", "", said)
    text = re.sub(r"\[[\w./]+\.cpp:\d+: ?\w*\] ?", "", text)
    text = re.sub(r" ?In \S+ at /\S+:\d+\)?", "", text)
    text = re.sub(r"^\w[\w ]* \((.*?)\)?$", r"\1", text).strip(" .()")
    if "optimization profile" in text:
        return text, "give the sizes: --shape NAME:MIN:OPT:MAX"
    if "SM75" in text:
        return text, "compute in fp16, or leave out compute capability 7.5"
    return text, ""


def main() -> int:
    """The process: a request in, lines out; 0 unless it could not even answer."""
    request = json.load(sys.stdin)
    # Native code may print; the answer must stay readable. So descriptor 1 becomes stderr.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answer_to, "w", encoding="utf-8") as stream:
        try:
            worker = Worker(request, stream)
        except ImportError as error:
            stream.write(json.dumps({"failed": f"cannot be loaded ({error})"}) + "\n")
            return 0
        try:
            answer = worker.run()
        except Failed as error:
            answer = {"failed": error.what, "hint": error.hint}
        except Exception as error:  # noqa: BLE001  native code and polygraphy raise anything
            answer = {"failed": f"{type(error).__name__}: {error}", "hint": ""}
        worker.tell(**answer)
        stream.flush()
        # The libraries' own teardown is slow and may crash; the answer stands.
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
