"""Device profiles by name: the TOML files beside this module, and a person's own."""

import difflib
import logging
from collections.abc import Collection, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import TypeVar, cast, get_args

from .cost.roofline import Calibration, Roofline
from .errors import UnknownDevice, UsageError
from .host import DetectedFacts, detect
from .operator_lists import operator_list
from .profile import DeviceProfile, Lattice, Lowering, Parser, Protocol
from .schema import Fact, Facts, ProfileFile, checked
from .toml_file import parse_toml, read_bytes, read_toml
from .user_files import user_files

T = TypeVar("T")
logger = logging.getLogger(__name__)
FOLDER = Path(str(resources.files(__package__ or "")))
_INHERITED = ("facts", "lowering", "protocol", "about")
_OF_ONE_FILE = ("aliases", "cost", "calibration")


def shipped() -> list[str]:
    """The targets that come with nncc, sorted.

    Example:
        >>> [name for name in shipped() if name.startswith("raspberry")]
        ['raspberry-pi-4', 'raspberry-pi-5']
    """
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def names() -> list[str]:
    """The targets that `load` knows, sorted: those that come with nncc and the person's own.

    Example:
        >>> {"host", "jetson-nano", "x86-cpu"} <= set(names())
        True
    """
    return sorted({*shipped(), *user_files()})


def path_of(name: str) -> Path | None:
    """The file of the target of exactly this name; None where there is none.

    Raises:
        UsageError: a file of the person's own has the name of a shipped one.
    """
    own = user_files().get(name)
    if name not in shipped():
        return own
    if own is not None:
        raise UsageError(
            f"{name!r} is a device that nncc knows",
            where=str(own),
            hint=f'rename the file; base = "{name}" in it keeps what it does not state',
        )
    return FOLDER / f"{name}.toml"


def load(name: str) -> DeviceProfile:
    """The profile of the device called `name`, or of that alias.

    Raises:
        UnknownDevice: no such device; the message lists the known ones and the nearest.
        UsageError: its file is one of the person's own, and not valid or of a taken name.

    Example:
        >>> load("jetson-nano").max_opset
        13
    """
    path = path_of(name)
    if path is not None:
        return from_file(path)
    aliases = known_aliases()
    if name in aliases:
        return from_file(aliases[name])
    near = difflib.get_close_matches(name.lower(), [*names(), *aliases], n=1, cutoff=0.5)
    guess = f"did you mean {near[0]}? " if near else ""
    raise UnknownDevice(
        f"no device is called {name[:80]!r}",
        hint=f"{guess}known devices: {', '.join(names())}",
    )


def free_name(name: str, aliases: Collection[str], file: Path) -> None:
    """Nothing, where a profile of the person's own may have this name and these aliases.

    Raises:
        UsageError: another device has one of them.
    """
    others = {alias: path for alias, path in known_aliases().items() if path.stem != name}
    for taken in (name, *aliases):
        if taken in shipped() or taken in others or (taken != name and taken in names()):
            raise UsageError(
                f"{taken!r} is a device that nncc knows",
                where=str(file),
                hint="give another --name" if taken == name else "change its aliases",
            )


def known_aliases() -> dict[str, Path]:
    """Other names of devices; those that come with nncc win over a person's own."""
    own = [path for name, path in user_files().items() if name not in shipped()]
    files = [*(FOLDER / f"{name}.toml" for name in shipped()), *own]
    found: dict[str, Path] = {}
    for path in files:
        try:
            told = read_toml(path).get("aliases", [])
        except UsageError as error:
            logger.warning("left out: %s", error)
            continue
        listed = cast("list[object]", told) if isinstance(told, list) else []
        for alias in listed:
            found.setdefault(str(alias), path)
    return found


def from_file(path: Path) -> DeviceProfile:
    """The profile that a TOML file describes, named after the file.

    Raises:
        UsageError: the file is not a valid profile; names the file and the key.
    """
    return from_text(read_bytes(path), path)


def from_text(text: bytes, path: Path) -> DeviceProfile:
    """The profile that the text of a TOML file describes.

    Args:
        text: at most `toml_file.MOST_BYTES`.
        path: gives the name, and is named in errors.

    Raises:
        UsageError: as `from_file`.
    """
    content = checked(_with_base(parse_toml(text, path), path), path)
    facts = content.facts
    found = detect() if content.detected else _written(facts)
    operators = facts.operators.value
    listed: frozenset[str] | None
    if operators == "any":
        listed = None
    elif isinstance(operators, str):
        listed = operator_list(operators)[0]
    else:
        listed = frozenset(operators)
    lowering, protocol = content.lowering, content.protocol
    return DeviceProfile(
        name=path.stem,
        title=content.title,
        runtime=content.runtime,
        max_opset=found.max_opset,
        max_ir_version=found.max_ir_version,
        operators=listed,
        dtypes=frozenset(facts.dtypes.value),
        precisions=tuple(facts.precisions.value),
        lattice=Lattice(found.rank_step, found.group_width),
        memory_bytes=found.memory_bytes,
        is_local=content.detected,
        sources={**dict(_sources(content)), **found.sources},
        aliases=tuple(content.aliases),
        runtime_version=found.runtime_version,
        parser=_value(facts.parser),
        compute_capabilities=tuple(_value(facts.compute_capabilities) or ()),
        bandwidth_gbs=_value(facts.bandwidth_gbs),
        peak_gflops=cast("dict[str, float]", _value(facts.peak_gflops) or {}),
        build_weight_copies=facts.build_weight_copies.value,
        build_workspace_bytes=facts.build_workspace_bytes.value,
        about={**{key: fact.value for key, fact in content.about.items()}, **found.about},
        lowering=Lowering(
            **(lowering.model_dump(exclude={"source"}, exclude_none=True) if lowering else {}),
            sparse=_value(facts.sparse) or Lowering.sparse,
        ),
        protocol=Protocol(
            **(protocol.model_dump(exclude={"source"}, exclude_none=True) if protocol else {})
        ),
        cost={
            key: Roofline(
                **table.model_dump(exclude={"classes_seen"}),
                classes_seen=frozenset(table.classes_seen),
            )
            for key, table in content.cost.items()
        },
        calibration={
            key: Calibration(**table.model_dump())
            for key, table in content.calibration.items()
        },
    )


def _sources(content: ProfileFile) -> Iterator[tuple[str, str]]:
    """Name of each field of the profile, and where the file says it is from."""
    facts = content.facts
    for key in Facts.model_fields:
        fact = cast("Fact[object] | None", getattr(facts, key))
        if fact is not None:
            yield key, fact.source
    lists = facts.operators.value
    if isinstance(lists, str) and lists in get_args(Parser):
        yield (
            "operators",
            f"{facts.operators.source}: {operator_list(cast('Parser', lists))[1]}",
        )
    if content.lowering:
        yield "lowering", content.lowering.source
    if content.protocol:
        yield "protocol", content.protocol.source
    for precision, table in content.calibration.items():
        yield f"cost.{precision}", table.source
    for key, told in content.about.items():
        yield key, told.source


def _with_base(tables: dict[str, object], path: Path) -> dict[str, object]:
    """The tables of a file over those of the shipped one that it names as its base.

    What the base states and the file does not is inherited, key by key; not so its other names
    and its costs, which belong to the one board and runtime that they were measured on.
    """
    if "base" not in tables:
        return tables
    own = {key: value for key, value in tables.items() if key != "base"}
    base = tables["base"]
    if not isinstance(base, str) or base not in shipped():
        raise UsageError(
            f"base: {str(base)[:80]!r} is no device that nncc ships",
            where=str(path),
            hint=f"known: {', '.join(shipped())}",
        )
    under = read_toml(FOLDER / f"{base}.toml")
    if "base" in under:
        under = _with_base(under, FOLDER / f"{base}.toml")
    whole = {key: value for key, value in under.items() if key not in _OF_ONE_FILE} | own
    for key in _INHERITED:
        first, second = under.get(key), own.get(key)
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            whole[key] = {
                **cast("Mapping[str, object]", first),
                **cast("Mapping[str, object]", second),
            }
    return whole


def _value(fact: Fact[T] | None) -> T | None:
    return fact.value if fact is not None else None


def _written(facts: Facts) -> DetectedFacts:
    """The facts that a file states itself, in the shape that detection gives."""
    need = (facts.max_opset, facts.max_ir_version, facts.rank_step, facts.group_width)
    opset, ir_version, rank, width = (cast("Fact[int]", fact).value for fact in need)
    return DetectedFacts(
        max_opset=opset,
        max_ir_version=ir_version,
        rank_step=rank,
        group_width=width,
        memory_bytes=_value(facts.memory_bytes),
        runtime_version=_value(facts.runtime_version) or "",
        sources={},
        about={},
    )
