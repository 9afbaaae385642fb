"""Fit: the term of every changed site, and how far it is from the weight."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..passes.forms import Term
from ..passes.plan import Plan
from ..passes.sites import Site
from ..passes.spectra import relative_errors
from ..runtime.machine import cores


@dataclass(frozen=True)
class Fitted:
    """A term and its distance from the weight, recomputed from the decompressed term.

    Args:
        term: the term.
        error_op, error_fro: ‖W − Ŵ‖ / ‖W‖ of the patch matrix m × c·κ.
    """

    term: Term
    error_op: float
    error_fro: float


def fit(
    sites: Sequence[Site],
    plan: Plan,
    *,
    jobs: int = 0,
    on_done: Callable[[int, int, str], None] | None = None,
) -> Mapping[str, Fitted]:
    """The fitted term of every changed site of the plan, the largest weights first.

    Sites that share a weight share the term.

    Args:
        sites: as `find_sites` gives them.
        plan: checked against the sites.
        jobs: threads; 0 takes one a core.
        on_done: called with (done, of how many, the site's name).
    """
    from threadpoolctl import threadpool_limits

    changed = set(plan.changed)
    by_weight: dict[str, list[Site]] = {}
    for site in sites:
        if site.name in changed:
            by_weight.setdefault(site.weight_name, []).append(site)

    def work(site: Site) -> Fitted:
        W = site.W()
        term = plan.form(site.name).compress(W)
        return Fitted(term, *relative_errors(W, term.decompress()))

    groups = sorted(by_weight.values(), key=lambda users: (-users[0].weights, users[0].name))
    fitted: dict[str, Fitted] = {}
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(jobs or cores()) as pool,
    ):
        futures = [pool.submit(work, users[0]) for users in groups]
        for done, (users, future) in enumerate(zip(groups, futures, strict=True), 1):
            result = future.result()
            fitted |= {site.name: result for site in users}
            if on_done is not None:
                on_done(done, len(groups), users[0].name)
    return fitted
