"""Limits: what bounds a further speed-up of the whole net, in shares of its time.

Amdahl (AFIPS 1967): where a share f of the time stays as it is, no speed-up exceeds 1 / f.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..allocation.survey import WORTH
from ..outcome import LayerRow
from ..writing.alternatives import Layer, Time
from .held import Held

DEPTHWISE = "depthwise layers"
GROUPED = "layers of narrow groups"
SMALL = "layers too small for the device's steps of rank"
SLOWER = "layers that no candidate makes faster"
LOST = "layers that lost when measured"
GATED = "layers that the quality gate put back"
LEFT = "weights that no form is for"
OTHER = "everything that is no layer"
_SAME = 1e-6
_LONGEST = 1e12
"""Milliseconds that no layer takes; NaN and more are nobody's times."""
PUT_BACK = "put back: the model fails the quality gate"


@dataclass(frozen=True)
class Share:
    """Time that stays as it is.

    Args:
        what: kind of layer, or operator.
        count: how many.
        ms: of an inference of the original.
    """

    what: str
    count: int
    ms: float


@dataclass(frozen=True)
class Limits:
    """Where the time is, and what is left to gain.

    Args:
        basis: of `reference_ms`, `compressed_ms` and the shares.
        reference_ms, compressed_ms: of an inference.
        fixed: what no form changes, the largest first.
        fastest: predicted speed-up with the fastest candidate of every layer, whatever the
            error; None where candidates have no times.
        left: predicted time of the compressed net by what limits it; None without cost model.
        exact: predicted speed-up of exact rewriting alone.
    """

    basis: Literal["measured", "predicted"]
    reference_ms: float
    compressed_ms: float
    fixed: tuple[Share, ...]
    fastest: float | None = None
    left: Time | None = None
    exact: float = 1.0

    @property
    def fixed_share(self) -> float:
        """What no form changes, of the original's time."""
        fixed = math.fsum(share.ms for share in self.fixed)
        return min(fixed / self.reference_ms, 1.0) if self.reference_ms > 0 else 0.0

    @property
    def cap(self) -> float:
        """Speed-up that nothing can exceed while those shares stay."""
        return 1 / self.fixed_share if self.fixed_share else math.inf

    @property
    def is_storage(self) -> bool:
        """Whether all that was weighed runs as the original does, and only stores less."""
        return self.fastest is not None and self.fastest < self.exact * (1 + _SAME)

    @property
    def speedup(self) -> float:
        """Reached."""
        return self.reference_ms / self.compressed_ms if self.compressed_ms > 0 else math.inf


def limits(held: Held) -> Limits | None:
    """The limits of an artifact; None where its times are neither measured nor predicted."""
    o = held.artifact.outcome
    if o.latency is not None and any(row.reference_ms for row in o.layers):
        basis: Literal["measured", "predicted"] = "measured"
        before = o.latency.reference.trimmed_mean_ms
        after = o.latency.compressed.trimmed_mean_ms
    elif o.predicted is not None:
        basis = "predicted"
        before, after = o.predicted.reference_ms, o.predicted.compressed_ms
    else:
        return None
    if not (math.isfinite(before) and math.isfinite(after) and before > 0):
        return None
    times = layer_times(held, basis)
    fixed: dict[str, list[float]] = {}
    for row in o.layers:
        kind, ms = fixed_kind(row, held.layer(row)), times.get(row.name)
        if kind and ms is not None:
            fixed.setdefault(kind, []).append(ms)
    shares = [Share(kind, len(ms), math.fsum(ms)) for kind, ms in fixed.items()]
    exact = 1.0 if o.predicted is None else o.predicted.exact
    other = max(before / exact - math.fsum(times.values()), 0.0)
    shares += _others(held, other)
    shares.sort(key=lambda share: (-share.ms, share.what))
    fastest = _fastest(held, exact)
    if fastest is not None and o.predicted is not None:
        fastest = max(fastest, o.predicted.speedup)  # filters that went save elsewhere too
    return Limits(basis, before, after, tuple(shares), fastest, _left(held), exact)


def layer_times(held: Held, basis: Literal["measured", "predicted"]) -> Mapping[str, float]:
    """Milliseconds of every layer as it was."""
    found: dict[str, float] = {}
    for row in held.rows:
        ms = row.reference_ms if basis == "measured" else row.predicted_reference_ms
        if ms is not None and 0 <= ms < _LONGEST:
            found[row.name] = ms
    return found


def fixed_kind(row: LayerRow, layer: Layer | None) -> str:
    """Why a layer's time stays, in the words of a group of layers; "" where it need not."""
    if row.status == "changed":
        return ""
    if row.reason.startswith(PUT_BACK):
        return GATED
    if row.status == "reverted":
        return LOST
    if row.status == "left alone":
        return LEFT
    tried = () if layer is None else layer.candidates
    if len(tried) < 2 and row.reason and (layer is None or layer.chosen is not None):
        return _shaped(row) if layer is not None and layer.reason else SLOWER
    dense = tried[0].predicted_ms if tried else None
    times = [c.predicted_ms for c in tried[1:] if c.predicted_ms is not None]
    if dense is None or not times or min(times) <= WORTH * dense:
        return ""
    if any(abs(ms - dense) > _SAME * dense for ms in times):  # codes alone run as dense does
        return SLOWER
    return ""


def _shaped(row: LayerRow) -> str:
    """The group of a layer whose shape leaves nothing to choose."""
    if len(row.shape) > 2 and row.shape[0] > 1:
        return DEPTHWISE if row.shape[2] == 1 else GROUPED
    return SMALL


def _others(held: Held, ms: float) -> list[Share]:
    """What is no layer, by operator as far as it is predicted."""
    if ms <= 0:
        return []
    rest = () if held.weighed is None else held.weighed.rest
    whole = math.fsum(entry.time.ms for entry in rest)
    if whole <= 0:
        return [Share(OTHER, 1, ms)]
    return [Share(entry.op, entry.time.launches, ms * entry.time.ms / whole) for entry in rest]


def _fastest(held: Held, exact: float) -> float | None:
    """Reference over the least time that the candidates of all layers allow together."""
    if held.weighed is None or not held.weighed.rest:
        return None
    rest = math.fsum(entry.time.ms for entry in held.weighed.rest)
    before, least = rest, rest
    is_any = False
    for layer in held.weighed.layers:
        if layer.reference is None:
            continue
        times = [c.predicted_ms for c in layer.candidates if c.predicted_ms is not None]
        is_any |= len(times) > 1
        before += layer.reference.ms
        least += min([layer.reference.ms, *times])
    return exact * before / least if is_any and least > 0 else None


def _left(held: Held) -> Time | None:
    """The compressed net's predicted time by what limits it."""
    if held.weighed is None:
        return None
    times = [entry.time for entry in held.weighed.rest]
    times += [x.compressed for x in held.weighed.layers if x.compressed is not None]
    if not times:
        return None
    return Time(
        launches=sum(t.launches for t in times),
        launch_ms=min(math.fsum(t.launch_ms for t in times), 1e30),
        compute_ms=min(math.fsum(t.compute_ms for t in times), 1e30),
        memory_ms=min(math.fsum(t.memory_ms for t in times), 1e30),
    )
