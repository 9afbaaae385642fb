"""TensorRT-RTX in tests: a real parser and a real builder that need no graphics card."""

import pytest

from nncc.runtime.tensorrt import Library, rtx


def library() -> Library:
    """The installed TensorRT-RTX; the test is skipped, and says why, where there is none."""
    found = rtx()
    if found is None:
        reason = "no tensorrt-rtx: pip install 'nncc[rtx]' (x86-64 Linux or Windows)"
        print(reason)
        pytest.skip(reason)
    return found
