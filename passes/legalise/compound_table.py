"""Operators that stand for many: normalisations, activations, attention and the like."""

from collections.abc import Mapping

from . import activations, attention, branches, col2im, gathers, masks, normalisation
from .lowering import Lowering

COMPOUNDS: Mapping[str, tuple[Lowering, ...]] = {
    **activations.LOWERINGS,
    **attention.LOWERINGS,
    **branches.LOWERINGS,
    **col2im.LOWERINGS,
    **gathers.LOWERINGS,
    **masks.LOWERINGS,
    **normalisation.LOWERINGS,
}
"""Operator to lowerings; one of another domain is written `domain::Operator`."""
