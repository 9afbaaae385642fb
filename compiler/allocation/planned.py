"""Planned: what is to be done to every layer, and why not more."""

from dataclasses import dataclass

from ...passes.plan import Plan
from .alternatives import Considered

OF_THE_BUDGET = ("the budget", "the rest of the budget")
"""How that begins which a plan left undone of what it was asked for."""


@dataclass(frozen=True)
class Planned:
    """What is to be done, and why not more.

    Args:
        plan: form of every site that was considered.
        reasons: site name to why it stays dense.
        objective_value: smallest reachable maximum error (operator, sqrt-k, blockwise), or the
            largest relative error (frobenius).
        budget: e.g. "macs <= 0.33"; "" where none was asked.
        budget_met: whether the plan holds it.
        budget_used: reached fraction of the budgeted quantity; None of two.
        both_used: that of each of two.
        gap: where a sum was minimised, how far above the least possible it may be, as a share
            of it.
        undone: what was left undone, and the flag that would allow it.
        reverted: sites that went back to dense since they lost when measured.
        considered: what the allocation weighed; None where nothing was chosen.
    """

    plan: Plan
    reasons: dict[str, str]
    objective_value: float | None = None
    budget: str = ""
    budget_met: bool = True
    budget_used: float | None = None
    undone: tuple[str, ...] = ()
    reverted: tuple[str, ...] = ()
    considered: Considered | None = None
    both_used: tuple[float, ...] = ()
    gap: float | None = None
