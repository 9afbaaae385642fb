"""A device's profile as facts for people: each with its source."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from ...device_profiles.profile import DeviceProfile

UNTOLD = {"sources", "about"}
Plain = str | int | float | bool | None | list[str] | dict[str, int]


@dataclass(frozen=True)
class DeviceFact:
    """One fact of a device.

    Args:
        name: the profile's field.
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
        if isinstance(self.value, list):
            many = len(self.value) > 12
            return f"{len(self.value)} names" if many else ", ".join(self.value)
        if isinstance(self.value, dict):
            return ", ".join(f"{k} {v}" for k, v in self.value.items())
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return f"{self.value:,}"
        return str(self.value)


def device_facts(profile: DeviceProfile) -> list[DeviceFact]:
    """Everything the profile says, in its order; the facts in words last."""
    named = [
        DeviceFact(f.name, _plain(getattr(profile, f.name)), profile.sources.get(f.name, ""))
        for f in dataclasses.fields(profile)
        if f.name not in UNTOLD
    ]
    told = [DeviceFact(k, v, profile.sources.get(k, "")) for k, v in profile.about.items()]
    return named + told


def _plain(value: object) -> Plain:
    if isinstance(value, frozenset):
        return sorted(cast(frozenset[str], value))
    if isinstance(value, tuple):
        return list(cast(tuple[str, ...], value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return cast(dict[str, int], dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return dict(cast(Mapping[str, int], value))
    return cast(Plain, value)
