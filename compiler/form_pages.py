"""Form pages: what a form is, takes, stores and becomes, read off the form itself."""

import inspect
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..device_profiles.errors import NnccError, UnknownForm
from ..passes.forms import Form, Term, forms, text
from ..passes.forms.language.fields import Field, fields_of
from ..passes.forms.language.grammar import nearest
from ..passes.geometry import Geometry

_KERNEL = (3, 3)
_SHAPE = (1, 32, 16, *_KERNEL)
_GEOMETRY = Geometry(
    "Conv",
    kernel=_KERNEL,
    strides=(1, 1),
    dilations=(1, 1),
    pads=(1, 1, 1, 1),
    in_extent=(1, 14, 14),
    out_extent=(1, 14, 14),
)
"""The layer of the example: 32 filters of 16 × 3 × 3."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a form.

    Args:
        name: what it is called.
        takes: what it takes, e.g. "a whole number".
        default: as a text; "" where it must be given.
        meaning: what the form's docstring says, ranges too.
    """

    name: str
    takes: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Example:
    """One form on a layer of 32 filters of 16 × 3 × 3.

    Args:
        text: the form.
        stored: part name to what is stored of it, e.g. "float16 (32, 2)".
        bits: of a weight, counted as the papers do.
        runs: the layers that a device is asked to run.
        is_folded: whether it runs as the one dense layer it stands for.
        is_decoded: whether the file holds the small parts and the runtime unfolds them.
    """

    text: str
    stored: Mapping[str, str]
    bits: float
    runs: tuple[str, ...]
    is_folded: bool
    is_decoded: bool

    @property
    def filed(self) -> str:
        """What a file holds of a layer that runs dense; "" where that is the weight."""
        if not (self.is_folded and self.is_decoded):
            return ""
        return "the small parts; the runtime unfolds them when it loads"


@dataclass(frozen=True)
class Page:
    """Everything about one form.

    Args:
        name: as in plans and texts.
        title: its docstring's first line.
        about: the rest of the docstring: equations and sources.
        parameters: in order.
        example: None where no small example could be made.
    """

    name: str
    title: str
    about: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    example: Example | None = None

    @property
    def usage(self) -> str:
        """How it is written: name(required, …, [optional=default])."""
        words = [
            p.name if not p.default else f"[{p.name}={p.default}]" for p in self.parameters
        ]
        return f"{self.name}({', '.join(words)})" if words else self.name

    def to_json(self) -> dict[str, object]:
        """The page as one JSON object."""
        found: dict[str, object] = {
            "name": self.name,
            "usage": self.usage,
            "title": self.title,
            "about": list(self.about),
            "parameters": [vars(p) for p in self.parameters],
            "example": None,
        }
        if self.example is not None:
            runs = {"runs": list(self.example.runs), "stored": dict(self.example.stored)}
            found["example"] = vars(self.example) | runs
        return found


def pages() -> list[Page]:
    """The page of every form by name, without examples."""
    return [_page(kind) for _, kind in sorted(forms().items())]


def page(name: str) -> Page:
    """The page of one form, with an example that is fitted and counted.

    Raises:
        UnknownForm: there is none of that name.
    """
    table = forms()
    if name not in table:
        raise UnknownForm(
            f"unknown form {name!r}",
            hint=f"{nearest(name, table)}forms are {', '.join(sorted(table))}",
        )
    bare = _page(table[name])
    return Page(bare.name, bare.title, bare.about, bare.parameters, _example(table[name]))


def _page(kind: type[Form]) -> Page:
    title, about, meanings = _told(inspect.getdoc(kind) or kind.name)
    parameters = tuple(
        Parameter(
            field.name,
            field.expected,
            "" if field.is_required else _default(field),
            meanings.get(field.name, ""),
        )
        for field in fields_of(kind)
    )
    return Page(kind.name, title, about, parameters)


def _default(field: Field) -> str:
    if isinstance(field.default, Form):
        return text(field.default)
    return "none" if field.default is None else str(field.default)


def _told(docstring: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """First line, further paragraphs, and the words of each argument."""
    head, _, rest = docstring.partition("\nArgs:\n")
    title, *about = [" ".join(part.split()) for part in head.split("\n\n") if part.strip()]
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break  # the next section
        match = re.match(r" {4}([\w, ]+): (.*)", line)
        if match is not None:
            names = [name.strip() for name in match[1].split(",")]
            meanings |= dict.fromkeys(names, match[2])
        elif names and line.strip():
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
    return title, tuple(about), meanings


def _example(kind: type[Form]) -> Example | None:
    """The first small form of a kind that fits the example's layer."""
    W = np.random.default_rng(0).standard_normal(_SHAPE).astype(np.float32)
    for form in itertools.islice(_small(kind, 1), 200):
        try:
            kernels = form.kernels(_SHAPE, _GEOMETRY)
            term = form.compress(W)
        except NnccError:
            continue
        dense = _GEOMETRY.as_kernel(*_SHAPE[1:3], _SHAPE[0])
        stored = {
            name: f"{array.dtype} {'x'.join(map(str, array.shape)) or '1'}"
            for name, array in term.arrays().items()
        }
        runs = tuple(
            f"{k.op} {'x'.join(map(str, k.kernel)) or '1'} {k.inputs} -> {k.outputs}"
            + (f", {k.groups} groups" if k.groups > 1 else "")
            for k in kernels
        )
        is_decoded = _is_decoded(term)
        return Example(
            text(form),
            stored,
            term.cost().bits / W.size,
            runs,
            kernels == (dense,),
            is_decoded,
        )
    return None


def _is_decoded(term: Term) -> bool:
    """Whether a term unfolds its weight in the graph."""
    import onnx_ir as ir

    from ..passes.emitter import SiteEmitter

    emitter = SiteEmitter("example", ir.DataType.FLOAT, set(), {})
    return term.decode(emitter) is not None


def _small(kind: type[Form], depth: int) -> Iterator[Form]:
    """Small forms of a kind, the plainest first."""
    required = [field for field in fields_of(kind) if field.is_required]
    optional = [field for field in fields_of(kind) if not field.is_required]
    for more in ([], *([field] for field in optional)):
        fields = [*required, *more]
        for values in itertools.product(*(list(_values(field, depth)) for field in fields)):
            try:
                yield kind(**{f.name: v for f, v in zip(fields, values, strict=True)})
            except NnccError:
                continue


def _values(field: Field, depth: int) -> Iterator[object]:
    if field.takes_form:
        yield from _parts(field, depth)
    elif field.words:
        yield from field.words[:2]
    elif field.takes(float):
        yield from (0.05, 0.5)
    elif field.takes(int):
        yield from (2, 4, 1, 3)
    elif field.item.takes_form:
        parts = list(itertools.islice(_parts(field.item, depth), 4))
        yield from itertools.permutations(parts, 2)
    elif field.item.takes(int):
        yield from ((2,), (2, 2), (2, 2, 2), (2, 2, 2, 2))
    else:
        yield "example"


def _parts(field: Field, depth: int) -> Iterator[Form]:
    if not depth:
        return
    table = forms()
    first = [name for name in ("quantize", "prune", "lowrank") if name in table]
    for name in dict.fromkeys([*first, *sorted(table)]):
        for form in itertools.islice(_small(table[name], depth - 1), 1):
            try:
                field.accept(form)
            except ValueError:
                continue
            yield form
