"""A torch module with example inputs is a source like any other."""

from pathlib import Path

import numpy as np
import pytest

from nncc.compiler.proving.verify import verified_normalise
from nncc.compiler.reading.ingest import ingest
from nncc.compiler.writing.save import write
from nncc.device_profiles.errors import ModelError, UsageError
from nncc.runtime.session import open_session, run

torch = pytest.importorskip("torch", reason="torch is the extra nncc[train]")


def net() -> object:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.5),
        torch.nn.Linear(8 * 36, 10),
    )


def test_module_computes_the_same_after_ingest_and_normalise(tmp_path: Path) -> None:
    """Some seconds: torch's exporter is slow to load."""
    module, x = net(), torch.randn(1, 3, 8, 8)
    module.train()
    model = ingest(module, example_inputs=(x,), workdir=tmp_path)
    assert module.training, "the caller's module is left in its mode"
    assert model.name == "sequential"
    (value,) = model.graph_model.graph.inputs
    done, warnings = verified_normalise(model, tmp_path, [{str(value.name): x.numpy()}])
    assert warnings == []
    write(done, tmp_path / "out.onnx")
    (got,) = run(open_session(tmp_path / "out.onnx"), {str(value.name): x.numpy()}).values()
    want = module.eval()(x).detach().numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)  # sums of 288 terms near 1


def test_module_that_only_tracing_can_export_is_traced(tmp_path: Path) -> None:
    class Branches(torch.nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    model = ingest(Branches(), example_inputs=(torch.ones(3),), workdir=tmp_path)
    assert "Mul" in [node.op_type for node in model.graph_model.graph]


def test_module_that_cannot_be_exported_gives_one_line(tmp_path: Path) -> None:
    class Fails(torch.nn.Module):
        def forward(self, x):
            raise ValueError(f"no way\nfor {x.shape}")

    with pytest.raises(ModelError, match="Fails: torch cannot export it") as caught:
        ingest(Fails(), example_inputs=(torch.ones(3),), workdir=tmp_path)
    assert "\n" not in str(caught.value)


def test_module_without_example_inputs_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"example_inputs=\(x, \.\.\.\)"):
        ingest(net(), workdir=tmp_path)
