"""Broken and hostile files: exactly one clear error, no traceback, no large allocation."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import HOSTILE, SOUND, nested_bodies, relu
from nncc.compiler.reading.ingest import ingest
from nncc.device_profiles.errors import ModelError, NnccError, UsageError

MEMORY_BYTES = 1 << 30
"""Address space beyond what the imports take; the largest file here is 400 kB."""

RUN_ALL = """
import json, resource, sys, time
from pathlib import Path
from nncc.compiler.reading.ingest import ingest
import onnx.version_converter, onnxscript.optimizer
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for line in sys.stdin:
    name, path = json.loads(line)
    start = time.perf_counter()
    try:
        ingest(path, workdir=Path(path).parent)
        said = ["none", ""]
    except BaseException as error:
        said = [type(error).__name__, str(error)]
    print(json.dumps([name, *said, time.perf_counter() - start]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, float]]:
    """Every hostile file ingested in one process with little memory: name to its outcome."""
    lines: list[str] = []
    for name, (make, _) in HOSTILE.items():
        folder = tmp_path_factory.mktemp("hostile")
        lines.append(json.dumps([name, str(make(folder))]))
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(MEMORY_BYTES)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = (json.loads(line) for line in done.stdout.splitlines())
    return {name: (kind, said, seconds) for name, kind, said, seconds in found}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused_with_one_line(
    name: str, outcomes: dict[str, tuple[str, str, float]]
) -> None:
    kind, said, seconds = outcomes[name]
    assert kind in ("ModelError", "UnsupportedOp"), said
    assert HOSTILE[name][1] in said
    assert "model.onnx" in said
    assert "; " in said, "what to do is missing"
    assert "\n" not in said
    assert len(said) < 600
    assert seconds < 5


def test_sound_model_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(SOUND)
    assert [n.op_type for n in ingest(path, workdir=tmp_path).graph_model.graph] == [
        "Add",
        "Relu",
    ]


@pytest.mark.parametrize("what", ["missing", "folder", "device"])
def test_what_is_no_file_is_a_usage_error(tmp_path: Path, what: str) -> None:
    path = {"missing": tmp_path / "no.onnx", "folder": tmp_path, "device": Path("/dev/zero")}[
        what
    ]
    with pytest.raises(UsageError) as caught:
        ingest(path, workdir=tmp_path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)


def test_external_data_in_a_subfolder_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "w.bin").write_bytes(bytes(16))
    model = relu()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights/w.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    W = ingest(path, workdir=tmp_path).graph_model.graph.initializers["W"].const_value
    assert W is not None and W.numpy().tolist() == [0.0] * 4


def test_deeply_nested_onnx_ir_model_is_refused(tmp_path: Path) -> None:
    model = ir.from_proto(relu())
    graph = model.graph
    for _ in range(2000):
        y = ir.val("y")
        inner = ir.Graph([], [], nodes=[], name="body")
        node = ir.Node("", "If", [], [ir.AttrGraph("then_branch", graph)], outputs=[y])
        inner.append(node)
        inner.outputs.append(y)
        graph = inner
    deep = ir.Model(graph, ir_version=7)
    with pytest.raises(ModelError):
        ingest(deep, workdir=tmp_path)


def test_bytes_that_break_in_parts_are_refused_whatever_part(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for end in range(len(SOUND)):
        path.write_bytes(SOUND[:end])
        with pytest.raises(NnccError):
            ingest(path, workdir=tmp_path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_a_model_or_one_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    broken = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("flipped")
    path = folder / "model.onnx"
    path.write_bytes(bytes(broken))
    said = ""
    try:
        ingest(path, workdir=folder)
    except NnccError as error:
        said = str(error)
    assert said.isprintable()


def test_thirty_nested_bodies_are_not_too_deep_to_parse(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(nested_bodies(25))
    with pytest.raises(ModelError) as caught:  # its condition is not there: sound nesting only
        ingest(path, workdir=tmp_path)
    assert "reads 'c'" in str(caught.value)
