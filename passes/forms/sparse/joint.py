"""Joint: one number of corrections for a whole net, shared out where they help most."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np

from ....device_profiles.errors import PlanError
from ...geometry import Weights
from ..form import Form, Term, squared_error
from ..language.fields import values_of
from ..metric import IDENTITY, Metric
from ..sums.sum import Sum, SumTerm
from .prune import Prune
from .prune_select import ball, kept_count, largest

_ROUNDS = 4
_ROUNDS_IN_METRIC = 2
_ENOUGH = 1e-4

Metrics = Mapping[str, Metric]


def joint(
    weights: Mapping[str, Weights], form: Form, kappa: float, metrics: Metrics | None = None
) -> Mapping[str, Term]:
    """The terms of all layers with κ corrections between them (see `shared_forms`)."""
    found = joint_forms(weights, form, kappa, metrics)
    known = metrics or {}
    return {n: found[n].compress(W, metric=_of(known, n)) for n, W in weights.items()}


def joint_forms(
    weights: Mapping[str, Weights], form: Form, kappa: float, metrics: Metrics | None = None
) -> Mapping[str, Form]:
    """One form for all layers, each with its own number of the κ (see `shared_forms`)."""
    return shared_forms(weights, dict.fromkeys(weights, form), kappa, metrics)


def shared_forms(
    weights: Mapping[str, Weights],
    forms: Mapping[str, Form],
    kappa: float,
    metrics: Metrics | None = None,
) -> Mapping[str, Form]:
    """The forms with each layer's own number of corrections, κ over the whole net.

    As in LC part V, section 5.1: min Σ_l ‖W_l − Ŵ_l‖² with Σ_l ‖S_l‖₀ ≤ κ. For pruning alone
    the κ largest weights of the net are kept, which is exact in the plain norm. For sums the
    corrections go to the κ largest of all residuals of the other parts and each layer is
    fitted with the number it got, in turns; a turn that raises the total error is not taken,
    and the same share for every layer is taken where nothing is better. In the layers'
    metrics an entry counts by h_jj r_ij², its own reduction of the output error. Pruning by
    "l1" alone: min Σ_l ‖W_l − S_l‖² with Σ_l ‖S_l‖₁ ≤ κ, one soft threshold for the net.

    Args:
        weights: (g, m, c, *kernel) by layer.
        forms: by layer: Prune, or a Sum with one such part; its own kappa is not looked at.
        kappa: corrections of the whole net, a count or a share of its weights.
        metrics: by layer; the plain norm where one is missing.

    Raises:
        PlanError: a form has no part, or several, that kappa is for.
        RankError: more corrections than weights.
    """
    known = {n: m for n, m in (metrics or {}).items() if not m.is_identity}
    parts = {name: _part(forms[name]) for name in weights}
    if any(part.by == "l1" for part in parts.values()):
        return _thresholded(weights, forms, kappa)
    count = kept_count(kappa, sum(W.size for W in weights.values()))
    at = {name: _position(forms[name]) for name in weights}
    sums = {name: place for name, place in at.items() if place is not None}
    if not sums and all(_of(known, name).is_round for name in weights):
        return _counted(forms, _shares(weights, known, count))
    best, least = _even(weights, forms, count), np.inf
    terms = _fitted(weights, best, known)
    least = _error(weights, terms, known)
    left: Mapping[str, Weights] = dict(weights)
    if sums:  # before any corrections the other parts have the weights to themselves
        bare = _counted(forms, dict.fromkeys(sums, 0))
        alone = {
            name: bare[name].compress(weights[name], metric=_of(known, name)) for name in sums
        }
        left = {n: _uncorrected(W, alone.get(n), at[n]) for n, W in weights.items()}
    for turn in range(_ROUNDS_IN_METRIC if known else _ROUNDS):
        found = _counted(forms, _shares(left, known, count))
        if turn and found == best:
            break
        terms = _fitted(weights, found, known)
        error = _error(weights, terms, known)
        is_enough = error >= least * (1 - _ENOUGH)
        if error < least:
            best, least = found, error
        if (turn and is_enough) or not sums:
            break
        left = {n: _uncorrected(W, terms[n], at[n]) for n, W in weights.items()}
    return best


def net_part(form: Form) -> Prune | None:
    """The part of a form whose kappa is of the whole net; None where there is none.

    Raises:
        PlanError: there are several, or it stands where no share can be given to it.

    Example:
        >>> net_part(Prune(0.01, of="net")), net_part(Prune(0.01))
        (Prune(kappa=0.01, by='l0', of='net'), None)
    """
    if not any(part.of == "net" for part in _within(form)):
        return None
    return _part(form)


def with_count(form: Form, count: int) -> Form:
    """The form with `count` corrections.

    Example:
        >>> with_count(Prune(0.01), 7)
        Prune(kappa=7, by='l0', of='layer')
    """
    return _with(form, Prune(count))


def _with(form: Form, part: Prune) -> Form:
    at = _position(form)
    if at is None:
        return part
    assert isinstance(form, Sum)
    return Sum((*form.parts[:at], part, *form.parts[at + 1 :]))


def _counted(forms: Mapping[str, Form], counts: Mapping[str, int]) -> dict[str, Form]:
    return {name: with_count(forms[name], count) for name, count in counts.items()}


def _even(
    weights: Mapping[str, Weights], forms: Mapping[str, Form], count: int
) -> Mapping[str, Form]:
    """The same share of corrections for every layer."""
    whole = sum(W.size for W in weights.values())
    return _counted(forms, {n: count * W.size // whole for n, W in weights.items()})


def _fitted(
    weights: Mapping[str, Weights], forms: Mapping[str, Form], metrics: Metrics
) -> dict[str, Term]:
    return {n: forms[n].compress(W, metric=_of(metrics, n)) for n, W in weights.items()}


def _error(
    weights: Mapping[str, Weights], terms: Mapping[str, Term], metrics: Metrics
) -> float:
    return sum(squared_error(W, terms[n], _of(metrics, n)) for n, W in weights.items())


def _shares(left: Mapping[str, Weights], metrics: Metrics, count: int) -> dict[str, int]:
    """How many of the `count` largest scores of the net each layer has."""
    scores = [_scores(R, _of(metrics, name)).reshape(-1) for name, R in left.items()]
    ends = np.cumsum([s.size for s in scores])
    chosen = largest(np.concatenate(scores), count)
    shares = np.diff(np.searchsorted(chosen, ends), prepend=0)
    return {name: int(share) for name, share in zip(left, shares, strict=True)}


def _scores(R: Weights, metric: Metric) -> Weights:
    """h_jj r_ij² as (g, m, n)."""
    flat = np.square(R.reshape(*R.shape[:2], -1))
    if metric.H is None:
        return flat
    d = np.diagonal(metric.H, axis1=1, axis2=2)[:, None, :]
    return (flat * d).astype(np.float32)


def _uncorrected(W: Weights, term: Term | None, at: int | None) -> Weights:
    """What all parts but the corrections leave of W."""
    if at is None:
        return W
    assert isinstance(term, SumTerm)
    R = np.array(W)
    for i, part in enumerate(term.parts):
        if i != at:
            R -= part.decompress()
    return R


def _thresholded(
    weights: Mapping[str, Weights], forms: Mapping[str, Form], kappa: float
) -> Mapping[str, Form]:
    """Pruning by ℓ1 with one soft threshold: the projection of all weights on one ball."""
    if any(_position(forms[name]) is not None for name in weights):
        raise PlanError(
            "pruning by l1 has a bound of the whole net only by itself",
            hint="choose by=l0 in a sum",
        )
    flat = np.concatenate([W.reshape(-1) for W in weights.values()])
    norm = float(np.abs(flat).sum(dtype=np.float64))
    kept = np.abs(ball(flat, kappa * norm if kappa < 1 else kappa))
    found: dict[str, Form] = {}
    at = 0
    for name, W in weights.items():
        radius = float(kept[at : at + W.size].sum())
        own = float(np.abs(W).sum(dtype=np.float64))
        at += W.size
        if radius > 0:
            found[name] = Prune(radius if radius >= 1 else radius / max(own, radius), "l1")
        else:
            found[name] = Prune(0)
    return found


def _of(metrics: Metrics, name: str) -> Metric:
    return metrics.get(name, IDENTITY)


def _part(form: Form) -> Prune:
    """The corrections that kappa is for."""
    at = _position(form)
    part = form if at is None else cast(Sum, form).parts[at]
    assert isinstance(part, Prune)
    return part


def _position(form: Form) -> int | None:
    """Where the corrections stand in a sum; None for corrections alone."""
    if isinstance(form, Prune) and form.by in ("l0", "l1"):
        return None
    if isinstance(form, Sum):
        found = [
            i
            for i, part in enumerate(form.parts)
            if isinstance(part, Prune) and part.by in ("l0", "l1")
        ]
        said = [i for i in found if cast(Prune, form.parts[i]).of == "net"]
        others = [part for i, part in enumerate(form.parts) if i not in (said or found)]
        nested = any(part.of == "net" for other in others for part in _within(other))
        if len(said or found) == 1 and not nested:
            return (said or found)[0]
    raise PlanError(
        f"form {form.name!r} has not one part that the net's corrections are for",
        hint="choose prune, or a sum with one prune part, by l0",
    )


def _within(form: Form) -> Iterable[Prune]:
    """Every Prune in a form, at any depth."""
    if isinstance(form, Prune):
        yield form
    for value in values_of(form).values():
        items = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
        for item in items:
            if isinstance(item, Form):
                yield from _within(item)
