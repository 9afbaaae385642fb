"""Whether a device takes a model, asked before any work."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ...passes.check import Finding


@dataclass(frozen=True)
class Suitability:
    """What a device cannot take of a model; nothing where it takes all.

    Args:
        model: the model's name.
        target: the device's name.
        findings: every offending node that a compile would not rewrite.
        rewritten: node, operator and reason of what it would rewrite.
        warnings: what a parser said that is not the device's own; refuses nothing.
    """

    model: str
    target: str
    findings: tuple[Finding, ...]
    rewritten: tuple[tuple[str, str, str], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return 3 if self.findings else 0

    @property
    def lines(self) -> list[str]:
        """The findings and the verdict, for a person."""
        told = [
            f"{f.node or self.model} ({f.op}): {f.reason}; {f.remedy}" for f in self.findings
        ]
        count = len(self.rewritten)
        if count:
            operators = ", ".join(sorted({op for _, op, _ in self.rewritten}))
            told.insert(0, f"compile rewrites {_plural(count, 'node')} ({operators})")
        told += [f"warning: {text}" for text in self.warnings]
        if not self.findings:
            last = f"PASS: nothing found that {self.target} cannot take (exit code 0)"
        else:
            found = _plural(len(self.findings), "finding")
            last = f"FAIL: {found} for {self.target} (exit code 3)"
        return [*told, last]

    def to_json(self) -> dict[str, object]:
        """What `nncc check --json` prints."""
        return {
            "model": self.model,
            "target": self.target,
            "ok": not self.findings,
            "findings": [asdict(finding) for finding in self.findings],
            "rewritten": [
                {"node": node, "op": op, "why": why} for node, op, why in self.rewritten
            ],
            "warnings": list(self.warnings),
        }


def suitability(path: Path, target: str, *, shapes: Sequence[str] = ()) -> Suitability:
    """What `target` cannot take of the model at `path`, as a compile would hand it over.

    Raises:
        UnknownDevice: no such target.
        UsageError, ModelError: as `ingest`.
    """
    from ...device_profiles.registry import load
    from ...passes.legalise import legalise
    from ...passes.legalise.findings import remaining
    from ...passes.legalise.narrow import narrow
    from ...passes.normalise import normalise
    from ..engines import parser_warnings
    from ..reading.ingest import ingest

    profile = load(target)
    with TemporaryDirectory(prefix="nncc-check-") as folder:
        model = ingest(path, shapes=shapes, workdir=Path(folder))
        narrowed, unfit = narrow(normalise(model), profile)
        legalised = legalise(narrowed, profile)
        findings = remaining(legalised, profile, unfit)
        return Suitability(
            model.name,
            profile.name,
            tuple(findings),
            tuple((change.node, change.op, change.what) for change in legalised.changes),
            parser_warnings(legalised.model, profile, Path(folder)) if not findings else (),
        )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")
