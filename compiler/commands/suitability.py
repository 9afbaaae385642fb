"""Whether a device takes a model, asked before any work."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ...passes.check import Finding, check


@dataclass(frozen=True)
class Suitability:
    """What a device cannot take of a model; nothing where it takes all.

    Args:
        model: the model's name.
        target: the device's name.
        findings: every offending node.
    """

    model: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        return 3 if self.findings else 0

    @property
    def lines(self) -> list[str]:
        """The findings and the verdict, for a person."""
        told = [
            f"{f.node or self.model} ({f.op}): {f.reason}; {f.remedy}" for f in self.findings
        ]
        if not told:
            return [f"PASS: nothing found that {self.target} cannot take (exit code 0)"]
        plural = "s" if len(told) > 1 else ""
        return [*told, f"FAIL: {len(told)} finding{plural} for {self.target} (exit code 3)"]

    def to_json(self) -> dict[str, object]:
        """What `nncc check --json` prints."""
        return {
            "model": self.model,
            "target": self.target,
            "ok": not self.findings,
            "findings": [asdict(finding) for finding in self.findings],
        }


def suitability(path: Path, target: str, *, shapes: Sequence[str] = ()) -> Suitability:
    """What `target` cannot take of the model at `path`.

    Raises:
        UnknownDevice: no such target.
        UsageError, ModelError: as `ingest`.
    """
    from ...device_profiles.registry import load
    from ...passes.normalise import normalise
    from ..reading.ingest import ingest

    profile = load(target)
    with TemporaryDirectory(prefix="nncc-check-") as folder:
        model = ingest(path, shapes=shapes, workdir=Path(folder))
        return Suitability(model.name, profile.name, tuple(check(normalise(model), profile)))
