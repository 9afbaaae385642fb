from pathlib import Path

import onnx
import pytest

from nncc.compiler.commands.inspect import inspect, model_file
from nncc.device_profiles.errors import ModelError, UsageError

REFS = Path(__file__).parents[3] / "data" / "refs"


def test_a_real_model_s_facts_are_those_of_its_file():
    found = inspect(REFS / "vggs_op13.onnx").model
    proto = onnx.load(REFS / "vggs_op13.onnx")
    assert sum(found.nodes.values()) == len(proto.graph.node)
    assert found.opsets == {"": 13} and found.ir_version == proto.ir_version
    assert found.producer.startswith(proto.producer_name)
    assert [port.name for port in found.inputs] == ["x"] and found.inputs[0].shape[0] == "N"
    assert found.file_bytes == (REFS / "vggs_op13.onnx").stat().st_size


def test_sites_have_their_weights_and_multiply_adds():
    found = inspect(REFS / "lenet5_op13.onnx").model
    # Lecun's net: 24·24·20·25, 8·8·50·500, 800·500, 500·10
    assert [s.macs for s in found.sites] == [288_000, 1_600_000, 400_000, 5_000]
    assert [s.weights for s in found.sites] == [500, 25_000, 400_000, 5_000]


def test_what_is_neither_model_nor_artifact_is_refused(tmp_path: Path):
    (tmp_path / "a.onnx").write_bytes(b"PK\x03\x04 a checkpoint")
    with pytest.raises(ModelError, match="zip"):
        inspect(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="not an nncc artifact"):
        inspect(tmp_path)
    with pytest.raises(UsageError, match="not an nncc artifact"):
        model_file(tmp_path)
