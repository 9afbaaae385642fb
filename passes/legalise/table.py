"""Which lowerings each operator has, tried in order."""

from collections.abc import Mapping

from .compound_table import COMPOUNDS
from .forms_table import FORMS
from .lowering import Lowering
from .refused import LOWERINGS as REFUSED

TABLE: Mapping[str, tuple[Lowering, ...]] = {
    op: (*COMPOUNDS.get(op, ()), *FORMS.get(op, ()), *REFUSED.get(op, ()))
    for op in sorted({*COMPOUNDS, *FORMS, *REFUSED})
}
"""Operator to lowerings; one of another domain is written `domain::Operator`."""
