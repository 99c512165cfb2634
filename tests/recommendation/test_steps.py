"""Steps within a time: what is recorded decides, what is late is interrupted, and nothing is done twice."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tlx.core.errors import RequestError
from tlx.recommendation.budget import OutOfTime, alarm
from tlx.recommendation.journal import Journal
from tlx.recommendation.steps import Steps

DONE = ({"found": 1}, {"of": np.arange(3)})


def test_what_a_step_found_is_there_for_the_next_process(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("a b", 1.5, *DONE)
    journal.add("c", 2.0, {})
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"step": "torn"')
    again = Journal(tmp_path)
    assert again.spent == 3.5
    assert again.steps == journal.steps
    assert [*again.arrays("a b")["of"]] == [0, 1, 2]
    again.add("d", 1.0, {})
    assert [*Journal(tmp_path).steps] == ["a b", "c", "d"]
    (tmp_path / "journal.jsonl").write_text("no journal\n")
    with pytest.raises(RequestError, match=r"journal\.jsonl: cannot be read; take another --name"):
        Journal(tmp_path)


def test_a_step_is_begun_only_if_it_and_the_reserve_fit_into_what_was_recorded(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("before", 50.0, {})
    steps = Steps(journal, 100.0, time.monotonic())
    assert steps.run("long", 45.0, 10.0, lambda: pytest.fail("it was begun")) is None
    assert steps.left_out == ["long"]
    assert steps.run("short", 30.0, 10.0, lambda: DONE)
    assert steps.run("short", 1e9, 10.0, lambda: pytest.fail("it is done")) == journal.found("short")
    assert Steps(Journal(tmp_path), 200.0, time.monotonic()).run("long", 45.0, 10.0, lambda: DONE)


def test_what_failed_is_left_out_for_good_and_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> tuple[dict[str, int], None]:
        raise RequestError("weights do not fit")

    steps = Steps(Journal(tmp_path), 100.0, time.monotonic())
    assert steps.run("a", 1.0, 1.0, fails) is None
    assert capsys.readouterr().err == "a: left out: weights do not fit\n"
    assert Steps(Journal(tmp_path), 100.0, time.monotonic()).run("a", 1.0, 1.0, lambda: DONE) is None
    with pytest.raises(RequestError):
        steps.run("b", 1.0, 1.0, fails, must=True)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer of signals here")
def test_a_late_step_is_interrupted_and_goes_on_with_more_time(tmp_path: Path) -> None:
    def waits() -> tuple[dict[str, int], None]:
        while True:
            time.sleep(0.01)

    steps = Steps(Journal(tmp_path), 0.3, time.monotonic())
    assert steps.run("a", 0.0, 0.0, waits) is None
    assert steps.left_out == ["a"]
    assert steps.run("a", 0.0, 0.0, lambda: pytest.fail("no more time was given")) is None
    assert Steps(Journal(tmp_path), 100.0, time.monotonic()).run("a", 1.0, 1.0, lambda: DONE)
    handler = signal.getsignal(signal.SIGALRM)
    with pytest.raises(OutOfTime), alarm(0.05):
        waits()
    with pytest.raises(KeyboardInterrupt), alarm(100.0):  # the user's own
        raise KeyboardInterrupt
    assert signal.getsignal(signal.SIGALRM) == handler
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
