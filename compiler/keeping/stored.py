"""What may go back to dense without breaking a budget of storage."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...passes.forms import ColumnsTerm, FiltersTerm
from ...passes.removal.left import NOTHING_GONE
from ..build import Built
from ..options import CompileOptions
from ..outcome import LayerRow
from ..prepare import Ready
from ..rows import other_bits, other_floats, rows

FLOAT_BITS = 32


@dataclass(frozen=True)
class Stored:
    """Counted bits of a compiled model, and how many it may take.

    Args:
        bits: of all floats as they are stored now.
        more: site name to the bits that it takes in addition once it is dense.
        limit: the most that a budget allows; infinite where none was asked.
    """

    bits: float
    more: Mapping[str, float]
    limit: float = math.inf

    def is_within(self, dense: frozenset[str]) -> bool:
        """Whether the budget holds when these sites are dense."""
        return self.bits + sum(self.more.get(name, 0.0) for name in dense) <= self.limit


def layer_rows(ready: Ready, result: Built) -> tuple[LayerRow, ...]:
    """The rows of a built model, without times."""
    return rows(
        ready.sites,
        ready.skipped,
        result.plan,
        result.fitted,
        lowerings=result.lowerings,
        left=result.left,
    )


def stored(ready: Ready, result: Built, options: CompileOptions) -> Stored:
    """The storage of a built model against `--size` and `--bits`."""
    assert result.model is not None, "a model was built"
    layers = layer_rows(ready, result)
    others = other_floats(ready.model, layers)
    moved = {name for name, fit in result.fitted.items() if fit.bias_delta is not None}
    rest = other_bits(result.model, [s for s in ready.sites if s.name in moved], others)
    parameters = sum(row.weights_reference for row in layers) + others
    kept = [FLOAT_BITS * options.size] if options.size is not None else []
    kept += [options.bits] if options.bits is not None else []
    whole = layer_rows(ready, replace(result, left=NOTHING_GONE)) if result.left else layers
    pairs = zip(whole, layers, strict=True)
    gone = sum(before.bits_compressed - after.bits_compressed for before, after in pairs)
    more = {row.name: float(row.bits_reference - row.bits_compressed) for row in layers}
    for name, entry in result.fitted.items():
        if isinstance(entry.term, ColumnsTerm | FiltersTerm):  # all filters may come back
            more[name] += gone
    return Stored(
        rest + sum(row.bits_compressed for row in layers),
        more,
        min(kept) * parameters if kept else math.inf,
    )
