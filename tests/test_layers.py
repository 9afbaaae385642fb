"""Arrows point down: who may import whom, and how (docs/decisions/0002)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "device_profiles": set(),
    "passes": {"device_profiles"},
    "runtime": {"device_profiles"},
    "compiler": {"device_profiles", "passes", "runtime"},
}
MODULES = sorted(path for layer in ALLOWED for path in (ROOT / layer).rglob("*.py"))
NAMELESS = {"common", "helpers", "manager", "misc", "utils"}


def imports(path: Path) -> Iterator[tuple[int, tuple[str, ...], ast.stmt]]:
    """Line, absolute module path inside the package (or as written), and the statement."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split(".")), node
        elif isinstance(node, ast.ImportFrom):
            module = tuple(node.module.split(".")) if node.module else ()
            if not node.level:
                yield node.lineno, module, node
                continue
            base = package[: len(package) - (node.level - 1)]
            for target in [module] if module else [(alias.name,) for alias in node.names]:
                yield node.lineno, (*base, *target), node


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_imports_only_from_layers_below(path):
    layer = path.relative_to(ROOT).parts[0]
    for line, target, statement in imports(path):
        where = f"{path.relative_to(ROOT)}:{line}"
        relative = isinstance(statement, ast.ImportFrom) and statement.level > 0
        assert target[:1] != ("nncc",), f"{where}: import relatively inside the package"
        if relative and target and target[0] in ALLOWED:
            below = ALLOWED[layer] | {layer}
            assert target[0] in below, f"{where}: {layer} must not import {target[0]}"


@pytest.mark.parametrize("layer", ["device_profiles", "passes", "runtime"])
def test_nobody_imports_the_compiler(layer):
    for path in (ROOT / layer).rglob("*.py"):
        targets = {target[0] for _, target, _ in imports(path) if target}
        assert "compiler" not in targets, path


def test_a_module_is_named_after_its_idea():
    assert not [path for path in MODULES if path.stem in NAMELESS]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_says_what_it_is_and_holds_one_idea(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module begins with a docstring"
    assert len(text.splitlines()) <= 400, "past 400 lines, split by idea"


def test_only_the_command_line_prints():
    for path in MODULES:
        if path.stem in ("cli", "console") and path.parent.name == "commands":
            continue
        calls = (
            n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Call)
        )
        names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        assert "print" not in names, path
