"""Two budgets at once: a quarter of the bytes in six tenths of the time, and what is left.

    pytest tests/bench/test_two_budgets.py -s                 (ten minutes on an idle core)
    pytest tests/bench/test_two_budgets.py -s -k "vggs"       (a minute)

`nncc compile MODEL -t host --size 0.25 --speedup 1.67 --calib SAMPLES` as a person runs it.
Size is what everything stored takes, all in, over 32 bits a float; latency is what the plan
was held to, the prediction of the cost model, and what was measured of the file stands beside
it. Scores are those of `tests/quality.py`; calibration inputs are of another seed or of other
files. The single budgets stand below, each against the recipe of one family.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

import nncc
from bars import Bar, check, conditions, print_table
from models import REF_DIGESTS, ref_model, wheel_model
from nncc.compiler.writing.artifact import Artifact
from nncc.runtime.weight_files import stored_bytes
from quality import score

INPUTS = {
    "pp-ocr-rec": "calibration:pp_ocr_rec",
    "magika": "calibration:magika",
    "lenet5": "calibration:fashion",
    "vggs": "calibration:fashion",
}
JUDGED = {"pp-ocr-rec": 400, "magika": 300, "lenet5": 5000, "vggs": 5000}
"""Samples of the evaluation."""
SHAPES = {"pp-ocr-rec": ("x:1x3x48x320",)}
"""Sizes that times are predicted and measured for."""
SIZE, LATENCY = 0.25, 0.6
NOISE = 0.003
"""Difference of two scores that says nothing."""


@dataclass(frozen=True)
class Single:
    """One budget, and the recipe of one family that it is held against."""

    name: str
    asked: tuple[str, float]
    recipe: str


SINGLES = [
    Single("lenet5", ("macs", 0.6), "low-rank"),
    Single("lenet5", ("macs", 0.35), "low-rank"),
    Single("vggs", ("macs", 0.6), "low-rank"),
    Single("pp-ocr-rec", ("macs", 0.6), "low-rank"),
    Single("lenet5", ("bits", 3.4), "quantize"),
    Single("vggs", ("bits", 3.4), "quantize"),
    Single("pp-ocr-rec", ("bits", 3.4), "quantize"),
]


def path_of(name: str) -> Path:
    return ref_model(name) if name in REF_DIGESTS else wheel_model(name)


def compiled(name: str, target: str, folder: Path, **options) -> Artifact:
    return nncc.compile(
        path_of(name),
        target,
        calib=INPUTS[name],
        shape=SHAPES.get(name, ()),
        output=folder,
        **options,
    )


@pytest.mark.parametrize("name", ["vggs", "pp-ocr-rec"])
def test_size_and_latency_are_held_at_once(name, tmp_path):
    made = compiled(name, "host", tmp_path / "build", size=SIZE, speedup=1 / LATENCY)
    outcome = made.outcome
    assert outcome.predicted is not None
    latency = outcome.predicted.compressed_ms / outcome.predicted.reference_ms
    counts = made.metrics.size
    kept = counts.bits_per_parameter / 32
    before, after = (score(name, p, JUDGED[name]) for p in (path_of(name), made.model))
    told = "" if outcome.latency is None else f"measured {1 / outcome.latency.speedup:.3f}"
    files = stored_bytes(made.model), stored_bytes(path_of(name))
    check(
        f"{name}, two budgets ({conditions()})",
        [
            Bar(
                "size, everything counted", kept, SIZE, note=f"file {files[0] / files[1]:.3f}"
            ),
            Bar("latency, predicted", latency, LATENCY, note=told),
            Bar("exit code", outcome.exit_code, 0),
        ],
    )
    print_table(name, ("score before", "after"), [(f"{before:.4f}", f"{after:.4f}")])


@pytest.mark.parametrize(
    "single", SINGLES, ids=lambda s: f"{s.name}-{s.asked[0]}-{s.asked[1]}"
)
def test_all_families_are_no_worse_than_one(single, tmp_path):
    asked = dict([single.asked])
    found: dict[str, tuple[float, float]] = {}
    for recipe in ("auto", single.recipe):
        folder = tmp_path / recipe
        made = compiled(single.name, "x86-cpu", folder, recipe=recipe, measure=False, **asked)
        used = made.outcome.budget_used or 0.0
        found[recipe] = used, score(single.name, made.model, JUDGED[single.name])
    print_table(
        f"{single.name} at {single.asked[0]} {single.asked[1]}",
        ("", "kept", "score"),
        [(recipe, f"{used:.4f}", f"{got:.4f}") for recipe, (used, got) in found.items()],
    )
    most = single.asked[1] / 32 if single.asked[0] == "bits" else single.asked[1]
    least = found[single.recipe][1] - NOISE
    check(
        f"{single.name}, {single.asked[0]} {single.asked[1]}",
        [
            Bar("kept", found["auto"][0], most),
            Bar("score", found["auto"][1], least, is_floor=True, note=single.recipe),
        ],
    )
