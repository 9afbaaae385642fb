"""Uniform plans: the same few levels for every large layer, corrections with what is left.

What several layers do together at one or two bits is more than the sum of what each does
alone, so an allocation that judges layers one at a time misses plans that treat all alike.
These are proposed here, and judged whole.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ...passes.counts import float_count
from ...passes.forms import Form
from ...passes.forms.codes.quantize import Quantize
from ...passes.forms.sparse.joint import shared_forms, with_count
from ...passes.forms.sparse.prune import Prune
from ...passes.forms.sums.sum import Sum
from ...passes.geometry import Weights
from ...passes.model import Model
from ...passes.sites import Site
from ..fitting.fit import metric_of
from ..fitting.moments import Moments
from .bits import Chosen, fixed_bits
from .bits_candidates import Fit, is_large
from .bits_row import Row

LEVELS = (16, 8, 4, 2)
"""Of the codes that all large layers take."""
MOST_UNIFORM = 2
"""Proposals, as each is fitted and run."""
_GOOD = (1e-4, 1e-3, 1e-2)
"""Relative squared error that does for the other layers: the first that can be paid."""
_FEWEST, _MOST = 0.0005, 0.1
"""Share of corrections below which there are none, above which levels are the better use."""
_SPENT = 0.985
"""Share of the bits left that corrections are counted to take; gaps vary with the fit."""
_SHARED = 1 << 22
"""Weights up to which corrections go where they help most, and not evenly: that takes fits."""
_VALUE_BITS = 16


def uniform_plans(
    model: Model,
    sites: Sequence[Site],
    rows: Sequence[Row],
    moments: Mapping[str, Moments],
    bits: float,
    *,
    halves: int | None = None,
) -> list[Chosen]:
    """The few uniform plans with the most levels that `bits` allow.

    Large layers take codes of so many levels with a scale a row, and share the corrections
    that what is left pays for (LC part V, section 5.1), where they lower the divergence of the
    outputs most as the measured rows predict it. Other layers take the cheapest good codes.

    Args:
        model: normalised, as the sites were found in it.
        sites: as `find_sites` gives them.
        rows: measured candidates.
        moments: of what the sites read.
        bits: all-in bits a float parameter.
        halves: see `choose`.

    Returns:
        Plans with bits as they are counted before any fit; divergences are not known.
    """
    by_name = {site.name: site for site in sites}
    large = [row for row in rows if is_large(by_name[row.site])]
    small = [row for row in rows if not is_large(by_name[row.site])]
    weights = {row.site: by_name[row.site].W() for row in large}
    metrics = {row.site: metric_of((by_name[row.site],), moments) for row in large}
    count = float_count(model)
    fixed = fixed_bits(model, sites, {row.site for row in rows}, halves)
    found: list[Chosen] = []
    for levels in LEVELS if large else ():
        codes = Quantize(levels, scale="row")
        spent = fixed + sum(_bits(row, codes, weights[row.site]) for row in large)
        others = _others(small, bits * count - spent)
        if others is None:
            continue
        forms, rest = others
        spare = bits * count - spent - rest
        counts = _scaled({n: float(W.size) for n, W in weights.items()}, weights, spare)
        share = sum(counts.values()) / sum(W.size for W in weights.values())
        if share > _MOST:
            break
        forms |= dict.fromkeys(weights, codes)
        if share > _FEWEST:
            corrected = Sum((codes, Prune(_FEWEST)))
            if sum(W.size for W in weights.values()) <= _SHARED:
                asked = dict.fromkeys(weights, corrected)
                shared = shared_forms(weights, asked, sum(counts.values()), metrics)
                counts = _scaled({n: _kappa(f) for n, f in shared.items()}, weights, spare)
            forms |= {n: with_count(corrected, c) for n, c in counts.items() if c}
            spent += sum(pair_bits(counts[n], W.size) for n, W in weights.items())
        users = {n: (n, *by_name[n].shares) for n in forms}
        named = {user: form for n, form in forms.items() for user in users[n]}
        found.append(Chosen(named, (spent + rest) / count, np.inf))
        if len(found) == MOST_UNIFORM:
            break
    return found


def pair_bits(count: float, size: int) -> float:
    """Bits that corrections are expected to take, gaps included (LC part V, eq. 9).

    Positions are taken to be spread evenly: at density δ a pair is followed by
    q / (1 − q) dummies, q = (1 − δ)^(2^p − 1).

    Example:
        >>> round(pair_bits(1000, 200_000) / 1000, 1)
        26.2
    """
    if count <= 0:
        return 0.0
    stays = np.log1p(-min(count / size, 1 - 1e-12))
    pairs = [(p + _VALUE_BITS) / -np.expm1((2**p - 1) * stays) for p in range(1, 17)]
    return float(count * min(pairs))


def _scaled(
    counts: Mapping[str, float], weights: Mapping[str, Weights], spare: float
) -> dict[str, int]:
    """Corrections in these proportions, and no more, that so many bits pay for.

    Where they cluster gaps cost more than is expected, so none is added for shares that differ
    and would cost less.
    """
    least, most = 0.0, 1.0
    for _ in range(40):
        tried = (least + most) / 2
        cost = sum(pair_bits(tried * c, weights[n].size) for n, c in counts.items())
        least, most = (tried, most) if cost <= _SPENT * spare else (least, tried)
    return {name: int(least * c) for name, c in counts.items()}


def _kappa(form: Form) -> float:
    """How many corrections a sum has."""
    assert isinstance(form, Sum), "corrections stand beside codes"
    return float(sum(part.kappa for part in form.parts if isinstance(part, Prune)))


def _others(rows: Sequence[Row], most: float) -> tuple[dict[str, Form], float] | None:
    """The cheapest good codes of every row and their bits; None where none can be paid."""
    for good in _GOOD:
        picked: dict[str, Fit] = {}
        for row in rows:
            codes = row.without_sums().fits
            fits = [fit for fit in codes if fit.error <= good]
            if codes:
                nearest = min(codes, key=lambda fit: fit.error)
                picked[row.site] = min(fits, key=lambda f: f.bits, default=nearest)
        dense = sum(row.dense_bits for row in rows if row.site not in picked)
        bits = dense + sum(fit.bits for fit in picked.values())
        if bits <= most:
            return {name: fit.form for name, fit in picked.items()}, bits
    return None


def _bits(row: Row, codes: Form, W: Weights) -> int:
    """Stored bits of codes, which do not depend on the fit."""
    known = [fit.bits for fit in row.fits if fit.form == codes]
    return known[0] if known else codes.compress(W).cost().bits
