"""The graphs that a compile writes, as readable text: operators, shapes and attributes.

`pytest tests/golden --update-golden` writes them again; the change is reviewed in the diff.
"""

from pathlib import Path

import onnx
import pytest
from onnx import helper

import nncc
from models import ref_model

HERE = Path(__file__).parent


def dump(path: Path) -> str:
    """One line a node: name, operator, attributes, shapes of its weights, what it joins."""
    model = onnx.load(path)
    shapes = {t.name: list(t.dims) for t in model.graph.initializer}
    lines = [f"opset {model.opset_import[0].version}, IR {model.ir_version}"]
    for node in model.graph.node:
        said = [
            f"{a.name}={helper.get_attribute_value(a)}"
            for a in sorted(node.attribute, key=lambda a: a.name)
        ]
        weights = [str(shapes[name]) for name in node.input if name in shapes]
        wires = f"({', '.join(node.input)}) -> {', '.join(node.output)}"
        lines.append(" ".join([node.name, node.op_type, *said, *weights, wires]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ["lenet5", "vggs"])
@pytest.mark.parametrize("target", ["jetson-nano", "x86-cpu"])
def test_the_compiled_graph_is_the_reviewed_one(tmp_path, request, name, target):
    done = nncc.compile(ref_model(name), target, macs=0.5, output=tmp_path / "b")
    golden = HERE / f"{name}-{target}.txt"
    found = dump(done.model)
    if request.config.getoption("--update-golden"):
        golden.write_text(found)
    assert found == golden.read_text(), f"pytest {HERE.name} --update-golden, if it is meant"
