"""What `nncc forms` and docs/forms.md say of forms: read off the forms, and true.

`pytest tests/unit/compiler/test_form_pages.py --update-golden` writes the reference in
docs/forms.md again.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from compositions import registered
from nncc.compiler.form_pages import Page, page, pages
from nncc.device_profiles.errors import UnknownForm
from nncc.passes.forms import forms, parse, text
from nncc.passes.forms.language.fields import fields_of

DOC = Path(__file__).parents[3] / "docs" / "forms.md"
BEGIN, END = "<!-- reference: begin -->\n", "<!-- reference: end -->\n"
SHAPE = (1, 32, 16, 3, 3)
NAMES = sorted(registered())


def markdown(found: Page) -> str:
    """One form's section of docs/forms.md."""
    lines = [f"### `{found.name}`", "", f"`{found.usage}`", "", found.title]
    for paragraph in found.about:
        lines += ["", paragraph]
    if found.parameters:
        lines += ["", "| parameter | takes | default | meaning |", "| --- | --- | --- | --- |"]
        for p in found.parameters:
            cells = (f"`{p.name}`", p.takes, p.default and f"`{p.default}`", p.meaning)
            row = " | ".join(cell.replace("|", r"\|") for cell in cells)
            lines.append(f"| {row} |")
    if found.example is not None:
        e = found.example
        runs = "one dense layer, as before" if e.is_folded else "; then ".join(e.runs)
        stored = ", ".join(f"{part} {what}" for part, what in e.stored.items())
        lines += [
            "",
            f"On 32 filters of 16 × 3 × 3, `{e.text}`",
            f"- stores {stored}: {e.bits:.3g} bits a weight as the papers count",
            f"- runs {runs}",
        ]
        lines += [f"- its file holds {e.filed}"] if e.filed else []
    return "\n".join(lines) + "\n"


def test_the_reference_of_the_docs_is_what_the_forms_say(request):
    written = DOC.read_text(encoding="utf-8")
    head, rest = written.split(BEGIN)
    _, tail = rest.split(END)
    sections = "\n".join(markdown(page(name)) for name in NAMES)
    found = f"{head}{BEGIN}\n{sections}\n{END}{tail}"
    if request.config.getoption("--update-golden"):
        DOC.write_text(found, encoding="utf-8")
    assert DOC.read_text(encoding="utf-8") == found, (
        "pytest --update-golden writes the reference again"
    )


def test_every_expression_in_the_docs_reads():
    told = DOC.read_text(encoding="utf-8").split(BEGIN)[0]
    said = re.findall(r"^    ((?:\w+)\(.*)$", told, re.MULTILINE)
    said += re.findall(r"--form '(?:[^'=(]+=)?([^']*)'", told)
    assert len(said) >= 7
    for expression in said:
        assert parse(text(parse(expression))) == parse(expression)


def test_every_form_has_a_page_with_its_parameters_and_what_they_mean():
    found = {p.name: p for p in pages()}
    assert set(found) == registered()
    for name, kind in forms().items():
        assert [p.name for p in found[name].parameters] == [f.name for f in fields_of(kind)]
        assert found[name].title.endswith(".")
        for parameter in found[name].parameters:
            assert parameter.meaning, f"{name}.{parameter.name} has no words in its docstring"


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_page_is_what_its_form_gives(name):
    """The text on the page, fitted again, takes the bits and the bytes the page says."""
    example = page(name).example
    assert example is not None
    form = parse(example.text)
    assert form.name == name
    W = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    term = form.compress(W)
    assert example.bits == term.cost().bits / W.size
    assert example.stored.keys() == term.arrays().keys()


def test_no_page_is_made_up_for_an_unknown_form():
    with pytest.raises(UnknownForm, match=r"did you mean 'prune'.*forms are affine, "):
        page("prun")
