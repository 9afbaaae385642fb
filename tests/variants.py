"""Low-rank variants of a net whose factors are noise: for speed and structure, no fits."""

import math

import numpy as np

from nncc.passes.forms import Blocks, Dense, Folded, Form, LowRank, Term, Tucker2
from nncc.passes.forms.blocks import BlocksTerm
from nncc.passes.forms.factors.lowrank import LowRankTerm
from nncc.passes.forms.factors.tucker import Tucker2Term
from nncc.passes.forms.folded import FoldedTerm
from nncc.passes.geometry import scheme_axes
from nncc.passes.plan import Plan
from nncc.passes.sites import Site

KINDS = ("scheme 0", "scheme 1", "scheme 2", "scheme 3", "tucker", "blocks")


def plan_at(sites: list[Site], kind: str, keep: float, *, step: int, off: int = 0) -> Plan:
    """Every layer but the first in one form, at `keep` of its multiply-adds where that fits.

    Args:
        sites: with known positions.
        kind: one of KINDS.
        keep: fraction of a layer's multiply-adds.
        step: ranks are multiples of it …
        off: … plus this: 2 leaves the lattice.
    """
    forms: dict[str, Form] = {}
    for at, site in enumerate(sites):
        form = None if at == 0 or site.shape[0] > 1 else _form(site, kind, keep, step, off)
        forms[site.name] = form or Dense()
    return Plan(forms)


def _form(site: Site, kind: str, keep: float, step: int, off: int) -> Form | None:
    _, m, c, *kernel = site.shape

    def rank(one: Form) -> int:
        wanted = keep * (site.macs or 0) / _macs(site, one)
        return max(step, round(wanted / step) * step) + off

    if kind == "tucker":
        if math.prod(kernel) == 1:
            return None
        share = math.sqrt(keep)
        a, b = (max(step, int(n * share) // step * step) + off for n in (m, c))
        form: Form = Tucker2(a, b)
        if a >= m or b >= c:
            return None
    elif kind == "blocks":
        if not kernel or c % 4 or (c // 4) % step:
            return None
        form = Blocks(4, LowRank(rank(Blocks(4, LowRank(1)))))
        if form.of.j >= min(m, c // 4 * math.prod(kernel)):
            return None
    else:
        scheme = int(kind[-1])
        if scheme not in site.schemes:
            scheme = 0
        made = LowRank(1) if scheme == 0 else Folded(scheme, LowRank(1))
        j = rank(made)
        rows = m * math.prod(kernel[a] for a in scheme_axes(scheme, tuple(kernel)))
        if j >= min(rows, m * c * math.prod(kernel) // rows):
            return None
        form = LowRank(j) if scheme == 0 else Folded(scheme, LowRank(j))
    return form if _macs(site, form) < (site.macs or 0) else None


def _macs(site: Site, form: Form) -> int:
    return sum(kernel.macs or 0 for kernel in form.kernels(site.shape, site.geometry))


def noise(sites: list[Site], plan: Plan) -> dict[str, Term]:
    """A term of the right shape for every changed site; nothing is fitted."""
    rng = np.random.default_rng(0)
    return {
        site.name: _term(plan.form(site.name), site.shape, rng)
        for site in sites
        if site.name in plan.changed
    }


def _term(form: Form, shape: tuple[int, ...], rng: np.random.Generator) -> Term:
    g, m, c, *kernel = shape

    def draw(groups: int, *sizes: int) -> np.ndarray:
        deviation = np.float32(1 / math.sqrt(math.prod(sizes[1:])))
        return rng.standard_normal((groups, *sizes), dtype=np.float32) * deviation

    if isinstance(form, LowRank):
        return LowRankTerm(draw(g, m, form.j), draw(g, form.j, c, *kernel))
    if isinstance(form, Tucker2):
        a, b = form.outputs, form.inputs
        return Tucker2Term(draw(g, m, a), draw(g, a, b, *kernel), draw(g, b, c))
    if isinstance(form, Folded):
        axes = scheme_axes(form.scheme, tuple(kernel))
        rest = [size for at, size in enumerate(kernel) if at not in axes]
        rows = m * math.prod(kernel[a] for a in axes)
        return FoldedTerm(_term(form.of, (g, rows, c, *rest), rng), axes, shape)
    assert isinstance(form, Blocks), f"no noise for {form}"
    parts = [_term(form.of, (g, m, c // form.k, *kernel), rng) for _ in range(form.k)]
    return BlocksTerm(tuple(parts))
