"""The examples in docstrings, run as they stand.

Not by `--doctest-modules`: the repository root is the package, and pytest would import its
files under other names.
"""

import doctest
import importlib
import pkgutil

import pytest

import nncc


def modules() -> list[str]:
    found = pkgutil.walk_packages(nncc.__path__, "nncc.")
    skip = ("nncc.tests", "nncc.docs", "nncc.build", "nncc.demo", "nncc.__main__")
    return ["nncc", *(m.name for m in found if not m.name.startswith(skip))]


@pytest.mark.parametrize("name", modules())
def test_examples_say_what_happens(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [t for name in modules() for t in finder.find(importlib.import_module(name))]
    assert sum(bool(test.examples) for test in examples) >= 10
