"""Fit: the term of every changed site, its distance from the weight, and its bias."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...passes.absorb import takes_bias
from ...passes.forms import IDENTITY, Metric, Term
from ...passes.geometry import Weights
from ...passes.plan import Plan
from ...passes.sites import Site
from ...passes.spectra import relative_errors
from ...runtime.machine import cores
from .joint_fit import with_shares
from .moments import Moments


@dataclass(frozen=True)
class Fitted:
    """A term and its distance from the weight, recomputed from the decompressed term.

    Args:
        term: the term.
        error_op, error_fro: ‖W − Ŵ‖ / ‖W‖ of the patch matrix m × c·κ.
        error_out: the same in the metric of the fit: relative error of the layer's output;
            None where no input was seen.
        bias_delta: (g · m,) what the bias takes over, (W − Ŵ) E[x]; None where nothing is
            known of the input or no bias can be had.
    """

    term: Term
    error_op: float
    error_fro: float
    error_out: float | None = None
    bias_delta: npt.NDArray[np.float64] | None = None


def fit(
    sites: Sequence[Site],
    plan: Plan,
    moments: Mapping[str, Moments] | None = None,
    *,
    jobs: int = 0,
    on_done: Callable[[int, int, str], None] | None = None,
) -> Mapping[str, Fitted]:
    """The fitted term of every changed site of the plan, the largest weights first.

    Sites that share a weight share the term; their moments are added up, and each has a bias
    of its own. The metric is the centred covariance where a bias takes over the mean.

    Args:
        sites: as `find_sites` gives them.
        plan: checked against the sites.
        moments: of what sites read, by name; a site without is fitted to its weights alone.
        jobs: threads; 0 takes one a core.
        on_done: called with (done, of how many, the site's name).
    """
    from threadpoolctl import threadpool_limits

    changed = set(plan.changed)
    by_weight: dict[str, list[Site]] = {}
    for site in sites:
        if site.name in changed:
            by_weight.setdefault(site.weight_name, []).append(site)
    seen = moments or {}
    groups = sorted(by_weight.values(), key=lambda users: (-users[0].weights, users[0].name))
    with threadpool_limits(1, user_api="blas"):
        forms = with_shares(groups, plan, lambda users: metric_of(users, seen))

    def work(users: Sequence[Site]) -> Mapping[str, Fitted]:
        W = users[0].W()
        metric = metric_of(users, seen)
        term = forms[users[0].name].compress(W, metric=metric)
        approximation = term.decompress()
        result = Fitted(
            term,
            *relative_errors(W, approximation),
            error_out=_output_error(W, approximation, metric),
        )
        return {
            site.name: replace(result, bias_delta=_bias_delta(site, seen, W, approximation))
            for site in users
        }

    fitted: dict[str, Fitted] = {}
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(jobs or cores()) as pool,
    ):
        futures = [pool.submit(work, users) for users in groups]
        for done, (users, future) in enumerate(zip(groups, futures, strict=True), 1):
            fitted |= future.result()
            if on_done is not None:
                on_done(done, len(groups), users[0].name)
    return fitted


def metric_of(users: Sequence[Site], moments: Mapping[str, Moments]) -> Metric:
    """The metric of the sites that share a weight: their moments, weighed by positions."""
    known = [(site, moments[site.name]) for site in users if site.name in moments]
    metrics = [
        (found.metric(has_bias=takes_bias(site)).H, found.count) for site, found in known
    ]
    held = [(H, count) for H, count in metrics if H is not None]
    if not held or len(held) < len(metrics):
        return IDENTITY
    if len(held) == 1:
        return Metric(held[0][0])
    whole = sum(count for _, count in held)
    total = np.zeros_like(held[0][0])
    for H, count in held:
        total += (count / whole) * H
    return Metric(total)


def _output_error(W: Weights, approximation: Weights, metric: Metric) -> float | None:
    if metric.is_identity:
        return None
    energy = metric.energy(W)
    lost = metric.squared(np.subtract(W, approximation, dtype=np.float64))
    return float(np.sqrt(max(lost, 0.0) / energy)) if energy > 0 else 0.0


def _bias_delta(
    site: Site, moments: Mapping[str, Moments], W: Weights, approximation: Weights
) -> npt.NDArray[np.float64] | None:
    found = moments.get(site.name)
    if found is None or not takes_bias(site):
        return None
    return found.bias_delta(W, approximation)
