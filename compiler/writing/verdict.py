"""The last line: pass or fail, why, and what the exit code means."""

from ..outcome import Outcome
from .card import uncalibrated

BUDGET_NOT_MET = 4
MEANING = {
    0: "ok",
    1: "internal error",
    2: "usage or configuration",
    3: "model invalid or unsupported on the target",
    4: "budget not met; the best so far is written",
    5: "regression",
    6: "device unreachable or failed",
    7: "nothing changed; --allow-noop accepts that",
    8: "measurement inconclusive",
    130: "interrupted; continue with --resume",
}


def verdict(outcome: Outcome) -> tuple[bool, str]:
    """Whether the compile passed, and the line that says so.

    Example: (False, "FAIL: nothing changed; --allow-noop accepts that (exit code 7)").
    """
    code = outcome.exit_code
    gate = outcome.gate
    if code:
        meaning = MEANING.get(code, "failed")
        if gate is not None and code == BUDGET_NOT_MET and (gate.reason or not gate.is_met):
            meaning = gate.reason or f"{gate.text} does not hold: {gate.said}"
        return False, f"FAIL: {meaning} (exit code {code})"
    done = f"changed {outcome.changed} of {len(outcome.layers)} layers"
    budget = f", {outcome.budget} met" if outcome.budget and outcome.budget_met else ""
    if gate is not None:
        budget += f", {gate.text} met"
    blind = ", UNCALIBRATED" if uncalibrated(outcome) else ""
    return True, f"PASS: {done}{budget}{blind} (exit code 0)"
