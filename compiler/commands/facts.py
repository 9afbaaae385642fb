"""A device's profile as facts for people: each with its source."""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeAlias, cast

from ...device_profiles.profile import DeviceProfile

UNTOLD = {"sources", "about", "cost", "calibration"}
# Fields that a file states under other names.
STATED = {"lattice": "rank_step"}
MANY = 12
Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"


@dataclass(frozen=True)
class DeviceFact:
    """One fact of a device.

    Args:
        name: the profile's field, or `cost.` or `calibration.` and a precision.
        value: as JSON holds it.
        source: where the fact comes from; empty where the profile does not say.
    """

    name: str
    value: Plain
    source: str

    @property
    def text(self) -> str:
        """The value for people."""
        if self.value is None:
            return "no list" if self.name == "operators" else "not known"
        if self.name.startswith("calibration.") and isinstance(self.value, dict):
            return _held_out(self.value)
        if isinstance(self.value, list) and len(self.value) > MANY:
            return f"{len(self.value)} names"
        return _told(self.value)


def device_facts(profile: DeviceProfile) -> list[DeviceFact]:
    """Everything the profile says, in its order; costs and facts in words last."""
    sources = profile.sources
    named = [
        DeviceFact(
            f.name,
            _plain(getattr(profile, f.name)),
            sources.get(f.name, sources.get(STATED.get(f.name, ""), "")),
        )
        for f in dataclasses.fields(profile)
        if f.name not in UNTOLD
    ]
    costs = [
        DeviceFact(f"{kind}.{precision}", _plain(value), sources.get(f"cost.{precision}", ""))
        for precision in sorted(profile.cost)
        for kind, value in (
            ("cost", profile.cost[precision]),
            ("calibration", profile.calibration.get(precision)),
        )
        if value is not None
    ]
    told = [DeviceFact(k, v, sources.get(k, "")) for k, v in profile.about.items()]
    return [*named, *costs, *told]


def percent(error: float | None) -> str:
    """A relative error for people.

    Example:
        >>> percent(0.0617), percent(None)
        ('6.2 %', 'unknown')
    """
    return "unknown" if error is None else f"{error:.1%}".replace("%", " %")


def _held_out(calibration: Mapping[str, Plain]) -> str:
    median, worst = (
        percent(cast("float | None", calibration.get(key)))
        for key in ("median_error", "worst_error")
    )
    return (
        f"error: median {median}, worst {worst} "
        f"({calibration['protocol']}; {calibration['rows']} rows)"
    )


def _told(value: Plain) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_told, value)) or "none"
    if isinstance(value, dict):
        inner = {
            k: f"({_told(v)})" if isinstance(v, dict) else _told(v) for k, v in value.items()
        }
        return ", ".join(f"{key} {text}" for key, text in inner.items()) or "none"
    return "none" if value is None else value


def _plain(value: object) -> Plain:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, Set):
        return [*sorted(str(item) for item in cast("Set[object]", value))]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in cast("Sequence[object]", value)]
    return cast("Plain", value)
