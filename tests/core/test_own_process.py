"""A command's own process ends at once, and loses nothing of what was still to be done or written."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tlx.core import own_process

PREAMBLE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tlx.core import own_process
own_process.begin()
import atexit, gc, os, threading, time
"""


def python(code: str, *, stdout: int | None = subprocess.PIPE) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PREAMBLE + code]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("code", [0, 2])
def test_threads_and_registered_calls_come_before_the_end_and_modules_are_left_alone(code: int) -> None:
    done = python(f"""
class Slow:
    def __del__(self):
        print("taken apart")
slow = Slow()
atexit.register(print, "registered", end="")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
own_process.end({code})
sys.exit({code})
""")
    assert (done.returncode, done.stdout, done.stderr) == (code, "thread\nregistered", "")


def test_without_an_exit_code_python_ends_as_ever() -> None:
    done = python("raise ValueError(1)")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: 1"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        done = python("print(1)\nown_process.end(0)\nsys.exit(0)", stdout=full.fileno())
    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_garbage_is_searched_for_as_ever_once_the_imports_are_over() -> None:
    done = python("""
before = gc.get_threshold()
with own_process.uncollected():
    assert not gc.isenabled()
    import json
assert gc.isenabled() and gc.get_freeze_count() and gc.get_threshold() == own_process.USUAL < before
assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
import weakref
class Net: pass
net = Net()
net.own = net
freed = weakref.ref(net)
with own_process.uncollected():  # a later import, when there are networks
    del net
gc.collect()
assert freed() is None
""")
    assert done.returncode == 0, done.stderr


def test_a_program_that_uses_tlx_keeps_its_own_settings() -> None:
    frozen, threshold = gc.get_freeze_count(), gc.get_threshold()
    gc.disable()
    try:
        with own_process.uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    with own_process.uncollected():
        assert not gc.isenabled()
    assert (gc.isenabled(), gc.get_freeze_count(), gc.get_threshold()) == (True, frozen, threshold)
