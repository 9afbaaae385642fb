"""Device profiles by name: the TOML files beside this module."""

import difflib
from importlib import resources
from pathlib import Path

from .errors import UnknownDevice, UsageError
from .host import DetectedFacts, detect
from .profile import DeviceProfile, Lattice
from .schema import Fact, Facts, read

FOLDER = Path(str(resources.files(__package__ or "")))


def names() -> list[str]:
    """The targets that `load` knows, sorted.

    Example:
        >>> names()
        ['host', 'jetson-nano', 'x86-cpu']
    """
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> DeviceProfile:
    """The profile of the device called `name`, or of that alias.

    Raises:
        UnknownDevice: no such device; the message lists the known ones and the nearest.

    Example:
        >>> load("jetson-nano").max_opset
        13
    """
    if name in names():
        return from_file(FOLDER / f"{name}.toml")
    aliases = {alias: known for known in names() for alias in read(_path(known)).aliases}
    if name in aliases:
        return from_file(_path(aliases[name]))
    near = difflib.get_close_matches(name.lower(), [*names(), *aliases], n=1, cutoff=0.5)
    guess = f"did you mean {near[0]}? " if near else ""
    raise UnknownDevice(
        f"no device is called {name!r}", hint=f"{guess}known devices: {', '.join(names())}"
    )


def from_file(path: Path) -> DeviceProfile:
    """The profile that a TOML file describes, named after the file.

    Raises:
        UsageError: the file is not a valid profile; names the file and the key.
    """
    content = read(path)
    facts = content.facts
    found = detect() if content.detected else _written(facts, path)
    operators = facts.operators.value
    sources = {
        key: fact.source
        for key in Facts.model_fields
        if (fact := getattr(facts, key)) is not None
    }
    about = {key: fact.value for key, fact in content.about.items()}
    about_sources = {key: fact.source for key, fact in content.about.items()}
    return DeviceProfile(
        name=path.stem,
        title=content.title,
        runtime=content.runtime,
        max_opset=found.max_opset,
        max_ir_version=found.max_ir_version,
        operators=None if operators == "any" else frozenset(operators),
        dtypes=frozenset(facts.dtypes.value),
        precisions=tuple(facts.precisions.value),
        lattice=Lattice(found.rank_step, found.group_width),
        memory_bytes=found.memory_bytes,
        is_local=content.detected,
        sources={**sources, **about_sources, **found.sources},
        aliases=tuple(content.aliases),
        runtime_version=found.runtime_version,
        build_weight_copies=facts.build_weight_copies.value,
        build_workspace_bytes=facts.build_workspace_bytes.value,
        about={**about, **found.about},
    )


def _path(name: str) -> Path:
    return FOLDER / f"{name}.toml"


def _written(facts: Facts, path: Path) -> DetectedFacts:
    """The facts that a file states itself, in the shape that detection gives."""

    def required(key: str, fact: Fact[int] | None) -> int:
        if fact is None:
            raise UsageError(f"facts.{key}: field required", where=str(path))
        return fact.value

    return DetectedFacts(
        max_opset=required("max_opset", facts.max_opset),
        max_ir_version=required("max_ir_version", facts.max_ir_version),
        rank_step=required("rank_step", facts.rank_step),
        group_width=required("group_width", facts.group_width),
        memory_bytes=facts.memory_bytes.value if facts.memory_bytes else None,
        runtime_version=facts.runtime_version.value if facts.runtime_version else "",
        sources={},
        about={},
    )
