"""Real engines by TensorRT-RTX, built without a card by a process that may die."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import pytest

import rtx
from nets import build
from nncc.device_profiles.errors import EngineBuildFailed, UsageError
from nncc.runtime.tensorrt import build_engine, child, fingerprint
from nncc.runtime.tensorrt.child import shown

SIDE = ((1, 3, 32, 32), (4, 3, 32, 32), (8, 3, 32, 32))


@pytest.fixture
def net(tmp_path) -> Path:
    rtx.library()
    onnx.save(build("resnet20", "noise"), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def dynamic(tmp_path) -> Path:
    rtx.library()
    onnx.save(build("resnet20", "noise", batch="N"), tmp_path / "n.onnx")
    return tmp_path / "n.onnx"


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_an_engine_is_a_file_with_true_facts(net, tmp_path):
    steps: list[str] = []
    facts = build_engine(
        net,
        tmp_path / "m.plan",
        precision="fp32",
        capabilities=("8.6", "8.9"),
        on_event=steps.append,
    )
    data = (tmp_path / "m.plan").read_bytes()
    assert facts.bytes == len(data) > 1_000_000
    assert facts.sha256 == hashlib.sha256(data).hexdigest()
    assert facts.capabilities == ("8.6", "8.9")
    assert facts.version == rtx.library().version
    assert facts.seconds > 0
    assert left(tmp_path) == ["m.onnx", "m.plan"]
    assert steps[:2] == ["parse", "build"] and steps[-1] == "write"


def test_two_builds_give_the_same_bytes_and_fingerprint(net, tmp_path):
    made = [
        build_engine(net, tmp_path / f"{i}.plan", precision="fp32", capabilities=("8.6",))
        for i in range(2)
    ]
    assert made[0].sha256 == made[1].sha256
    assert made[0].fingerprint == made[1].fingerprint


def test_the_fingerprint_is_known_before_the_build_and_differs_with_each_part(net):
    library = rtx.library()
    base = fingerprint(net, library, "fp16", {}, ("8.6",))
    others = {
        fingerprint(net, library, "fp32", {}, ("8.6",)),
        fingerprint(net, library, "fp16", {"input": SIDE}, ("8.6",)),
        fingerprint(net, library, "fp16", {}, ("8.6", "8.9")),
    }
    net.write_bytes(net.read_bytes() + b"\x1a\x00")  # another producer version
    others.add(fingerprint(net, library, "fp16", {}, ("8.6",)))
    assert len({base, *others}) == 5
    assert base.startswith(f"tensorrt-rtx-{library.version}-fp16-")


def test_free_axes_need_a_profile_and_get_one(dynamic, tmp_path):
    with pytest.raises(EngineBuildFailed) as raised:
        build_engine(dynamic, tmp_path / "n.plan", precision="fp32", capabilities=("8.6",))
    assert "input 'input' is [-1, 3, 32, 32]: its sizes are free" in str(raised.value)
    assert "--shape input:MIN:OPT:MAX" in str(raised.value)
    facts = build_engine(
        dynamic,
        tmp_path / "n.plan",
        precision="fp32",
        capabilities=("8.6",),
        shapes={"input": SIDE},
    )
    assert facts.shapes == {"input": SIDE}
    assert facts.bytes > 1_000_000


def test_an_unknown_card_is_refused_with_those_there_are(net, tmp_path):
    with pytest.raises(EngineBuildFailed) as raised:
        build_engine(net, tmp_path / "m.plan", capabilities=("8.6", "5.3"))
    assert "does not build for compute capability 5.3; choose from 7.5, " in str(raised.value)
    assert left(tmp_path) == ["m.onnx"]


def test_the_builders_own_words_are_told_without_its_source_lines(net, tmp_path):
    with pytest.raises(EngineBuildFailed) as raised:
        build_engine(net, tmp_path / "m.plan", capabilities=("7.5",))
    assert "FP32 GEMM is not supported" in str(raised.value)
    assert "leave out compute capability 7.5" in str(raised.value)
    assert ".cpp" not in str(raised.value)


def test_a_refused_node_is_named(tmp_path):
    rtx.library()
    proto = build("resnet20", "noise")
    proto.graph.node[1].op_type = "Foo"
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(EngineBuildFailed, match=r"refuses relu \(Foo\) is no operator"):
        build_engine(tmp_path / "m.onnx", tmp_path / "m.plan", capabilities=("8.6",))
    assert left(tmp_path) == ["m.onnx"]


def test_a_missing_folder_is_refused_before_the_work(net, tmp_path):
    with pytest.raises(UsageError, match="folder does not exist"):
        build_engine(net, tmp_path / "none" / "m.plan", capabilities=("8.6",))


def test_an_older_engine_stays_when_the_build_fails(net, tmp_path):
    (tmp_path / "m.plan").write_bytes(b"older")
    with pytest.raises(EngineBuildFailed):
        build_engine(net, tmp_path / "m.plan", capabilities=("7.5",))
    assert (tmp_path / "m.plan").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "was ended by SIGSEGV; this is a fault of the library"),
        (signal.SIGKILL, "was ended by SIGKILL; there may not be enough memory"),
    ],
)
def test_a_builder_that_dies_is_an_error_and_not_our_end(net, tmp_path, number, words):
    """The child is killed in the middle of its work, as a crash or a full memory would."""
    ended = threading.Event()

    def strike(step: str) -> None:
        if step == "parse" and not ended.is_set():
            ended.set()
            for pid in children_of(os.getpid()):
                os.kill(pid, number)

    with pytest.raises(EngineBuildFailed) as raised:
        build_engine(net, tmp_path / "m.plan", capabilities=("8.6",), on_event=strike)
    assert words in str(raised.value)
    assert left(tmp_path) == ["m.onnx"]


def test_an_interrupted_build_leaves_no_process_and_no_file(net, tmp_path):
    def interrupt(step: str) -> None:
        if step == "build":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(net, tmp_path / "m.plan", capabilities=("8.6",), on_event=interrupt)
    assert left(tmp_path) == ["m.onnx"]
    for _ in range(100):
        if not children_of(os.getpid()):
            break
        time.sleep(0.02)
    assert not children_of(os.getpid())


def children_of(parent: int) -> list[int]:
    """Worker processes that this one started."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat[1]) == parent and stat[0] != "Z" and child.WORKER.encode() in command:
            found.append(int(entry.name))
    return found


def test_what_a_library_prints_is_not_taken_for_an_answer():
    """Lines that are no JSON, no object or endless are passed over."""
    import io

    stream = io.BytesIO(
        b"noise\n[1]\n" + b"[" * 100_000 + b'\n{"event": "step"}\n{"errors": []}\n'
    )
    steps: list[str] = []
    assert child._listen(stream, steps.append) == {"errors": []}
    assert steps == ["step"]


def test_what_a_library_says_is_one_printable_line():
    assert shown("a\x1b[2J\nb" + "c" * 1000).startswith("a [2J bccc")
    assert len(shown("c" * 1000)) == 400


def test_a_worker_without_a_request_ends():
    done = subprocess.run(
        [sys.executable, "-P", "-m", child.WORKER],
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
