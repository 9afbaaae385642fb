"""Keep or revert by measurement: never slower than the original, whatever was promised.

    pytest tests/bench/test_keep.py -s               (half an hour; wants a quiet machine)
    pytest tests/bench/test_keep.py -s -k vggs

Speed only: weights are fitted without calibration inputs, so nothing here speaks of quality.
One thread; models are timed in fresh processes, in turns (ABBA). "Before" is the net as it was
planned, "after" what is left of it once layers that measure slower went back to dense.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import nncc
from bars import Bar, check, conditions, print_table
from lying import believe_in_weights, strided_net
from models import ref_model, wheel_model
from nncc.runtime.timing import Paired

NETS = (
    "lenet300", "lenet5", "vggs", "pp-ocr-rec", "pp-ocr-cls", "pp-ocr-det", "magika",
    "silero-vad", "mtcnn-pnet", "mtcnn-rnet", "mtcnn-onet",
)  # fmt: skip
LIED_TO = ("strided", "lenet5", "vggs", "pp-ocr-cls")
NOT_SLOWER = 0.97
SHAPES = {
    "pp-ocr-rec": ("x:1x3x48x320",),
    "pp-ocr-cls": ("x:1x3x48x192",),
    "pp-ocr-det": ("x:1x3x320x320",),
}


@dataclass(frozen=True)
class Kept:
    """A net compiled with and without looking at what it takes."""

    name: str
    planned: nncc.Artifact
    left: nncc.Artifact

    @property
    def bar(self) -> Bar:
        """The lower bound of the speed-up; one where nothing is left that could be slower."""
        latency = self.left.outcome.latency
        bound = 1.0 if latency is None else latency.speedup_ci[0]
        return Bar(f"{self.name}: lower bound", bound, NOT_SLOWER, True, self.note)

    @property
    def note(self) -> str:
        o = self.left.outcome
        return f"{o.changed} changed, {o.reverted} put back, exit {o.exit_code}"

    def row(self) -> tuple[str, ...]:
        promised = self.planned.outcome.predicted
        return (
            self.name,
            "-" if promised is None else f"{promised.speedup:.2f}",
            speed(self.planned.outcome.latency),
            speed(self.left.outcome.latency),
            str(self.planned.outcome.changed),
            str(self.left.outcome.reverted),
        )


HEAD = ("net", "predicted", "before", "after", "changed", "put back")


def speed(latency: Paired | None) -> str:
    if latency is None:
        return "-"
    low, high = latency.speedup_ci
    return f"{latency.speedup:.2f} ({low:.2f}-{high:.2f})"


def model(name: str, folder: Path) -> Path:
    if name == "strided":
        return strided_net(folder / "strided.onnx")
    return ref_model(name) if name.startswith(("lenet", "vggs")) else wheel_model(name)


def kept(name: str, folder: Path, **asked: object) -> Kept:
    path = model(name, folder)
    both = [
        nncc.compile(
            path, "host", output=folder / word, recipe="low-rank", revert=revert,
            shape=SHAPES.get(name, ()), **asked,
        )
        for word, revert in (("planned", False), ("left", True))
    ]  # fmt: skip
    return Kept(name, *both)


@pytest.mark.parametrize("name", NETS)
def test_fewer_multiply_adds_are_never_slower(name: str, tmp_path: Path):
    """Low-rank to 0.6 of the multiply-adds, then what lost goes back."""
    found = kept(name, tmp_path, macs=0.6)
    print_table(f"low-rank, MACs 0.6 ({conditions()})", HEAD, [found.row()])
    rows = [(r.name, r.reason) for r in found.left.outcome.layers if r.status == "reverted"]
    if rows:
        print_table("put back", ("layer", "why"), rows)
    check("never slower than the original", [found.bar])


@pytest.mark.parametrize("name", LIED_TO)
def test_a_cost_model_that_lies_makes_nothing_slower(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Calibrated by "time is weights": the plan is for a machine that does not exist."""
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    believe_in_weights()
    found = kept(name, tmp_path, speedup=1.2)
    print_table(f"a lie, speed-up 1.2 ({conditions()})", HEAD, [found.row()])
    check("never slower than the original", [found.bar])


def weights_of(path: Path) -> dict[str, np.ndarray]:
    model = onnx.load(path)
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_what_gains_stays_as_it_was_fitted_when_losers_go_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two layers lose under the lie and one gains: the gain keeps the terms it had."""
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    believe_in_weights()
    net = strided_net(tmp_path / "net.onnx", layers=2, with_a_gain=True)
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((8, 32, 48, 48)).astype(np.float32))
    asked: dict[str, object] = {
        "recipe": "low-rank",
        "speedup": 1.4,
        "time_budget": 1.0,  # no time to ask again, more boldly
        "calib": str(tmp_path / "x.npz"),
    }

    done = nncc.compile(net, "host", output=tmp_path / "b", **asked)
    believed = nncc.compile(
        net, "host", output=tmp_path / "c", revert=False, measure=False, **asked
    )

    status = {row.name: row.status for row in done.outcome.layers}
    assert believed.outcome.changed == 3
    assert status == {"conv0": "reverted", "conv1": "reverted", "gain": "changed"}
    assert done.outcome.latency is not None
    assert done.outcome.latency.speedup_ci[0] >= NOT_SLOWER
    assert done.outcome.fidelity.sqnr_db >= believed.outcome.fidelity.sqnr_db - 0.1
    before, after = weights_of(believed.model), weights_of(done.model)
    factors = [name for name in after if name.startswith("gain/")]
    assert factors
    for name in factors:
        np.testing.assert_array_equal(after[name], before[name])
