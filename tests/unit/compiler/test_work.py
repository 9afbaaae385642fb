"""One work folder, one process."""

import os
import subprocess
import sys

import pytest

from nncc.compiler.options import CompileOptions
from nncc.compiler.work import open_work
from nncc.device_profiles.errors import UsageError


def test_a_second_process_is_refused_while_the_first_runs(tmp_path):
    options = CompileOptions(output=tmp_path / "build")
    work = open_work(options, "host", "model")
    mark = work.path / "nncc-work.json"
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        mark.write_text(mark.read_text().replace(str(os.getpid()), str(sleeper.pid)))
        with pytest.raises(UsageError, match=f"process {sleeper.pid} is compiling into this"):
            open_work(options, "host", "model")
    finally:
        sleeper.kill()
        sleeper.wait()
    resumed = CompileOptions(output=tmp_path / "build", resume=True)
    assert open_work(resumed, "host", "model").resumed


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"request": 1, "process": "x"}', "\udcff"])
def test_a_damaged_mark_belongs_to_nobody(tmp_path, text):
    options = CompileOptions(output=tmp_path / "build", resume=True)
    work = open_work(options, "host", "model")
    (work.path / "nncc-work.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert not open_work(options, "host", "model").resumed
