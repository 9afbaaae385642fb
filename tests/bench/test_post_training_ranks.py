"""Low-rank nets after training, from unlabelled samples: the score that is left, and why.

    pytest tests/bench/test_post_training_ranks.py -s                  (half an hour)
    pytest tests/bench/test_post_training_ranks.py -s -k "lenet5 or vggs"   (a minute)

`nncc compile --recipe low-rank --macs X --calib SAMPLES` as a person runs it, 96 lines or 128
images of other seeds or files than the evaluation's; of those a quarter only proves. Scores
are those of `tests/quality.py`. Ranks are multiples of 8, the step of raspberry-pi-5; counts
of multiply-adds are of one sample and are no speed-up.
"""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bars import Bar, check, print_table
from models import FASHION_MNIST, REF_DIGESTS, fashion_mnist, ref_model, wheel_model
from nncc.compiler.allocation.planning import planned
from nncc.compiler.allocation.ranks import measured_surveys
from nncc.compiler.allocation.survey import Search, survey
from nncc.compiler.build import moments_of
from nncc.compiler.clock import Clock
from nncc.compiler.fitting.fit import Fitted, fit
from nncc.compiler.fitting.ranks_fit import nearest_fit
from nncc.compiler.options import CompileOptions
from nncc.compiler.prepare import prepared
from nncc.compiler.work import Work
from nncc.compiler.writing.save import write
from nncc.device_profiles.registry import load
from nncc.passes.plan import Plan, loads
from nncc.passes.rewrite import compress_weights
from quality import rendered_lines, score

TARGET = "raspberry-pi-5"
SEED = 7
LINES = 96
IMAGES = 128
JUDGED = {"pp-ocr-rec": 400, "vggs": 5000, "lenet5": 5000}
"""Samples of the evaluation."""
POINT = 0.01


@dataclass(frozen=True)
class Claim:
    """A net at a budget, and what must be left.

    Args:
        name: the model.
        macs: kept fraction of the multiply-adds.
        least: the score; None is one point below the original's.
    """

    name: str
    macs: float
    least: float | None = None


CLAIMS = (
    Claim("pp-ocr-rec", 0.75, 0.985),
    Claim("pp-ocr-rec", 0.60, 0.980),
    Claim("vggs", 0.50),
    Claim("vggs", 0.35),
    Claim("lenet5", 0.35),
)
MODULE = """
import numpy as np

def lines():
    with np.load({path!r}) as held:
        return [{{{name!r}: held[key]}} for key in held.files]
"""


def path_of(name: str) -> Path:
    return ref_model(name) if name in REF_DIGESTS else wheel_model(name)


def samples(claim: Claim, folder: Path) -> str:
    """What --calib is given: lines of their own widths, or images."""
    if claim.name == "pp-ocr-rec":
        feeds = {str(at): x for at, x in enumerate(lines(LINES, SEED))}
        np.savez(folder / "lines.npz", **feeds)
        path = str(folder / "lines.npz")
        module = f"lines_for_{100 * claim.macs:.0f}"  # one process imports each of them
        (folder / f"{module}.py").write_text(MODULE.format(path=path, name="x"))
        return f"{module}:lines"
    fashion_mnist()  # skips where there is none
    packed = FASHION_MNIST / "train-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(packed.read_bytes()), np.uint8, offset=16)
    images = pixels.reshape(-1, 1, 28, 28)
    at = np.random.default_rng(SEED).permutation(len(images))[:IMAGES]
    np.savez(folder / "images.npz", x=images[at].astype(np.float32) / np.float32(255))
    return str(folder / "images.npz")


def lines(n: int, seed: int) -> list[np.ndarray]:
    """Rendered lines as the reader takes them, (1, 3, 48, width)."""
    from PIL import Image

    found: list[np.ndarray] = []
    for _, image in rendered_lines(n, seed):
        width = int(np.ceil(48 * image.shape[1] / image.shape[0]))
        resized = Image.fromarray(image).resize((width, 48), Image.Resampling.BILINEAR)
        x = np.asarray(resized, np.float32) / 127.5 - 1
        x = np.pad(x, ((0, 0), (0, max(0, 320 - width))))
        found.append(x[None, None].repeat(3, 1))
    return found


def compiled(claim: Claim, folder: Path, *flags: str) -> Path:
    """The artifact of `nncc compile`."""
    command = [sys.executable, "-P", "-m", "nncc", "compile", str(path_of(claim.name))]
    command += ["-t", TARGET, "--no-measure", "--recipe", "low-rank"]
    command += ["--macs", str(claim.macs), "-o", str(folder / "build"), "--force"]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    done = subprocess.run(
        [*command, *flags],
        cwd=folder,
        env={**os.environ, "NNCC_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build"


def judged(claim: Claim, model: Path) -> float:
    return score(claim.name, model, JUDGED[claim.name])


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda c: f"{c.name}-{c.macs}")
def test_a_net_of_fewer_multiplications_keeps_its_score(claim: Claim, tmp_path, monkeypatch):
    calib = samples(claim, tmp_path)
    build = compiled(claim, tmp_path, "--calib", calib)
    ops = json.loads((build / "metrics.json").read_text())["ops"]
    kept = ops["macs_compressed"] / ops["macs_reference"]
    before = judged(claim, path_of(claim.name))
    after = judged(claim, build / "model.onnx")
    plan = loads((build / "plan.json").read_text())

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    rows = ablations(claim, plan, calib, tmp_path)
    alds = tmp_path / "alds"
    alds.mkdir()
    published = compiled(claim, alds, "--objective", "blockwise") / "model.onnx"
    rows["ALDS as published (no samples)"] = judged(claim, published)
    print_table(
        f"{claim.name} at {claim.macs} of the MACs, n = {JUDGED[claim.name]}",
        ("", "score", "change"),
        [
            (what, f"{found:.4f}", f"{found - before:+.4f}")
            for what, found in ({"original": before, "nncc": after} | rows).items()
        ],
    )
    least = before - POINT if claim.least is None else claim.least
    check(
        f"{claim.name} at {claim.macs} of the MACs",
        [
            Bar("MACs kept", kept, claim.macs),
            Bar("score", after, least, is_floor=True, note=f"before {before:.4f}"),
        ],
    )


def ablations(claim: Claim, plan: Plan, calib: str, folder: Path) -> dict[str, float]:
    """Scores at the same budget with one ingredient left out."""
    options = CompileOptions(
        recipe="low-rank", macs=claim.macs, calib=calib, objective="frobenius"
    )
    clock, profile = Clock(), load(TARGET)
    work = Work(folder / "work", False)
    work.path.mkdir()
    ready = prepared(path_of(claim.name), profile, options, work, None, clock)
    moments = moments_of(ready, options, work, clock)
    means = {name: replace(found, covariance=None) for name, found in moments.items()}
    ours = nearest_fit(ready, plan, moments, clock)
    apart = fit(ready.sites, plan, moments)
    search = Search(profile.lattice, exact=False)
    surveys = survey(ready.sites, search, moments=moments)
    blind = planned(ready.sites, ready.skipped, surveys, profile, options).plan
    search = replace(search, schemes=(0,), most_blocks=1)
    surveys = survey(ready.sites, search, moments=moments)
    surveys = measured_surveys(ready, surveys, moments, "macs", clock)
    flat = planned(ready.sites, ready.skipped, surveys, profile, options).plan

    def scored(fitted: Mapping[str, Fitted], of: Plan = plan) -> float:
        path = folder / "ablation.onnx"
        terms = {name: entry.term for name, entry in fitted.items()}
        deltas = {
            name: entry.bias_delta
            for name, entry in fitted.items()
            if entry.bias_delta is not None
        }
        write(compress_weights(ready.model, of, terms, bias_deltas=deltas), path)
        return judged(claim, path)

    return {
        "without sequential fits": scored(apart),
        "without H": scored(fit(ready.sites, plan, means)),
        "without bias correction": scored(
            {name: replace(entry, bias_delta=None) for name, entry in ours.items()}
        ),
        "plain SVD, same ranks": scored(fit(ready.sites, plan)),
        "without sensitivity": scored(nearest_fit(ready, blind, moments, clock), blind),
        "without foldings and blocks": scored(nearest_fit(ready, flat, moments, clock), flat),
    }
