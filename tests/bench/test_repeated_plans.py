"""A plan of codes or of all families, with the same samples, repeats its compile's bytes."""

import json
from pathlib import Path

import numpy as np
import pytest

import nncc
from models import ref_model

LENET = ref_model("lenet300")


@pytest.mark.parametrize(
    ("asked", "fit", "halves"),
    [
        ({"macs": 0.5}, "nearest", False),
        ({"size": 0.3}, "nearest", True),
        ({"recipe": "quantize", "bits": 3.0}, "in turn", True),
        ({"recipe": "additive", "bits": 2.5}, "in turn", True),
        ({"recipe": "tt-sparse", "size": 0.3}, "nearest", False),
    ],
)
def test_with_the_same_samples_a_plan_repeats_its_compile(
    tmp_path: Path, asked: dict[str, object], fit: str, halves: bool
):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.random((8, 1, 28, 28), dtype=np.float32))
    more = {"calib": str(tmp_path / "x.npz")}
    first = nncc.compile(LENET, "x86-cpu", output=tmp_path / "a", **asked, **more)
    plan = first.folder / "plan.json"
    held = json.loads(plan.read_text())
    assert (held.get("fit", "apart"), held.get("halves", False)) == (fit, halves)
    again = nncc.compile(LENET, "x86-cpu", output=tmp_path / "b", plan=plan, **more)
    for file in ("model.onnx", "plan.json"):
        assert (again.folder / file).read_bytes() == (first.folder / file).read_bytes()
    assert again.outcome.calibrated and first.outcome.calibrated
