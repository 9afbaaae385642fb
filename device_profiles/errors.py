"""The error tree: every failure a caller can act on, with its exit code.

It stands in the lowest layer because every layer raises from it. A message has three parts:
where, what, and what to do.
"""

from typing import ClassVar


class NnccError(Exception):
    """A failure that a person can do something about.

    Args:
        what: what is wrong, with the real numbers.
        where: the layer, node, file or option it was found at.
        hint: what to do next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(f"{where + ': ' if where else ''}{what}{'; ' + hint if hint else ''}")


class UsageError(NnccError):
    """An option, a file name or a configuration that cannot be used."""

    exit_code = 2


class MissingExtra(UsageError):
    """An optional package is needed; the hint names the extra to install."""


class ModelError(NnccError):
    """The ONNX file is broken, hostile or beyond what nncc reads."""

    exit_code = 3


class UnsupportedOp(ModelError):
    """An operator that the target or nncc cannot take."""


class ShapeUnknown(ModelError):
    """A shape that is needed and cannot be found; the hint names --shape."""


class WeightNotConstant(ModelError):
    """A weight that is computed at run time."""


class PlanError(NnccError):
    """A request that cannot be carried out as asked."""

    exit_code = 2


class UnknownForm(PlanError):
    """A form name that is not in the table."""


class BadExpression(PlanError):
    """A form's text that cannot be read.

    Args:
        what, where, hint: see `NnccError`; `what` begins with the column.
        excerpt: the text around the mistake and a caret below it, to show under the message.
    """

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", excerpt: tuple[str, ...] = ()
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.excerpt = excerpt


class RankError(PlanError):
    """A rank, block count or folding that does not fit the weight."""


class DuplicateName(PlanError):
    """Two things would carry one name."""


class BudgetInfeasible(PlanError):
    """No plan meets the budget; the message says the least that can be reached."""

    exit_code = 4


class PassError(NnccError):
    """A pass broke its promise: names the pass and those before it."""


class Precondition(PassError):
    """A pass was given a graph it does not take."""


class Postcondition(PassError):
    """A pass returned a graph that differs from what it promised."""


class DeviceError(NnccError):
    """A device, an engine or a transport failed."""

    exit_code = 6


class UnknownDevice(DeviceError):
    """A target name that no profile carries."""

    exit_code = 2


class Unreachable(DeviceError):
    """The device did not answer."""


class EngineBuildFailed(DeviceError):
    """The device's builder refused or was killed."""


class MeasureError(NnccError):
    """A measurement that cannot carry a conclusion."""

    exit_code = 8


class TooNoisy(MeasureError):
    """The spread is wider than the effect asked about."""


class Regression(MeasureError):
    """The candidate is slower than its baseline."""

    exit_code = 5
