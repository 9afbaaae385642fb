"""Planned: what is to be done to every layer, and why not more."""

from dataclasses import dataclass

from ...passes.plan import Plan


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
        budget_used: reached fraction of the budgeted quantity.
        undone: what was left undone, and the flag that would allow it.
    """

    plan: Plan
    reasons: dict[str, str]
    objective_value: float | None = None
    budget: str = ""
    budget_met: bool = True
    budget_used: float | None = None
    undone: tuple[str, ...] = ()
