"""Finding a TensorRT library without loading it, and saying what to install."""

import subprocess
import sys

import pytest

import rtx as real
from nncc.device_profiles.errors import MissingExtra
from nncc.runtime.tensorrt import Library, needed


def test_a_missing_library_is_one_line_that_names_the_extra():
    with pytest.raises(MissingExtra) as raised:
        needed(None, "build an engine")
    assert str(raised.value) == (
        "tensorrt-rtx is not installed, so nncc cannot build an engine; "
        "pip install 'nncc[rtx]'"
    )
    assert raised.value.exit_code == 2


def test_looking_for_libraries_loads_none_of_them():
    script = (
        "import sys; from nncc.runtime.tensorrt import installed; installed();"
        "print({m.partition('.')[0] for m in sys.modules}"
        " & {'tensorrt', 'tensorrt_rtx', 'polygraphy', 'onnx_graphsurgeon'})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_installed_library_says_its_name_and_version():
    library = real.library()
    assert library.is_rtx
    assert library.title == f"TensorRT-RTX {library.version}"
    assert library.version[0].isdigit()


def test_titles_tell_the_two_libraries_apart():
    assert Library("tensorrt", "tensorrt", "10.3").title == "TensorRT 10.3"
