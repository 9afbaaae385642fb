"""Fits of a low-rank plan: layer by layer on its own, or each behind those before it.

Sequential fits make good what earlier layers lost, and may follow the noise of few samples;
which of the two leaves the outputs nearer is measured on samples that neither saw.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from ...passes.plan import Plan
from ...passes.rewrite import compress_weights
from ...runtime.session import open_session, run
from ..clock import Clock
from ..events import Event
from ..prepare import Ready
from ..samples.inputs import Feeds
from ..writing.save import write
from .fit import Fitted, fit
from .moments import Moments
from .sensitivity import divergence
from .sequential import fit_sequentially


def nearest_fit(
    ready: Ready,
    plan: Plan,
    moments: Mapping[str, Moments],
    clock: Clock,
    *,
    jobs: int = 0,
) -> Mapping[str, Fitted]:
    """The fitted term of every changed site, in the way that moves the outputs least.

    Args:
        ready: the model, its sites, and samples to fit on and to judge by.
        plan: form of every site.
        moments: of what the sites read; without any there is but one way.
        clock: told of every layer, in the stage that runs.
        jobs: threads; 0 takes one a core.
    """

    def told(done: int, total: int, name: str) -> None:
        clock.on_event(Event("fit", done, total, name))

    apart = fit(ready.sites, plan, moments, jobs=jobs, on_done=told)
    if not moments or not ready.fit_feeds or len(plan.changed) < 2:
        return apart
    forms = {name: plan.form(name) for name in plan.changed}
    in_turn = fit_sequentially(
        ready.written, ready.sites, forms, ready.fit_feeds, on_done=told
    )
    # sites that cannot be cut at keep the fit of their own
    in_turn = {name: in_turn.get(name, entry) for name, entry in apart.items()}
    with TemporaryDirectory(prefix="nncc-fits-") as folder:
        ways = [
            moved(ready, plan, fitted, Path(folder) / "model.onnx")
            for fitted in (apart, in_turn)
        ]
    return in_turn if ways[1] < ways[0] else apart


def moved(ready: Ready, plan: Plan, fitted: Mapping[str, Fitted], path: Path) -> float:
    """The mean divergence of the outputs under a plan and its fits, on `ready.feeds`.

    Args:
        ready: the model and the samples.
        plan: form of every site.
        fitted: its terms.
        path: where the compiled model is written for the run.
    """
    return float(np.mean(each_moved(ready, plan, fitted, ready.feeds, path)))


def each_moved(
    ready: Ready,
    plan: Plan,
    fitted: Mapping[str, Fitted],
    feeds: Sequence[Feeds],
    path: Path,
) -> npt.NDArray[np.float64]:
    """The divergence of the outputs under a plan and its fits, one entry a sample.

    Args:
        ready: the model.
        plan: form of every site.
        fitted: its terms.
        feeds: the samples.
        path: where the compiled model is written for the run.
    """
    terms = {name: entry.term for name, entry in fitted.items()}
    deltas = {
        name: entry.bias_delta
        for name, entry in fitted.items()
        if entry.bias_delta is not None
    }
    model = compress_weights(ready.model, plan, terms, bias_deltas=deltas, shapes=ready.shapes)
    write(model, path)
    reference, compiled = open_session(ready.written), open_session(path)
    return np.array([divergence(run(reference, f), run(compiled, f)) for f in feeds])
