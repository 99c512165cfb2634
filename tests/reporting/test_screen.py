"""On a terminal of any width no word is cut, tables fit, and something says at any time what is being done."""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tlx.core import activity
from tlx.reporting.fitted_table import UNBROKEN, Column, fitted
from tlx.reporting.line_width import cells, fitting, shortened, wrapped
from tlx.reporting.run_display import epoch_line
from tlx.sweeps.sweep_progress import SweepProgress

WIDTHS = [80, 100, 140]
LINES = [
    "device: cpu, fp32; folder: outputs/2026-11-26/15-19-50-efficientnet_lite0-shapes-feature_extraction",
    "not converged: train longer, for example with strategy.phases.probe.epochs=20 (the loss was falling)",
    "  python -m tlx -m strategy=feature_extraction,finetune seeds=5 sweep.name=first    typed again, it goes on here",
    f"{'name':<26}{'what it is, in many words ' * 9}",
    f"  {'strategy=feature_extraction'}  /a/folder/{'so/deep/' * 12}",
    "größe " * 40,
    "界 " * 80,
]


@pytest.mark.parametrize("width", WIDTHS)
def test_lines_are_broken_at_spaces_alone_and_nothing_of_them_is_lost(width: int) -> None:
    for line in LINES:
        rows = wrapped(line, width)
        assert " ".join(rows).split() == line.split()
        words = max(map(cells, line.split()))
        assert all(cells(row) <= max(width, words) for row in rows)
    assert wrapped("short", width) == ["short"]
    assert wrapped("", width) == [""]


def test_what_follows_a_name_stays_in_its_column() -> None:
    assert wrapped(f"name      {'word ' * 20}".rstrip(), 50) == [
        "name      word word word word word word word word",
        *["          word word word word word word word word"],
        "          word word word word",
    ]
    assert wrapped(f"{'name ' * 6}     {'word ' * 8}".rstrip(), 50)[1].startswith("    word")  # it would be too narrow


@pytest.mark.parametrize("width", [20, *WIDTHS])
def test_of_facts_those_that_matter_least_are_left_out_and_none_is_cut(width: int) -> None:
    facts = [
        "probe: epoch 3",
        "12 min left",
        "val_accuracy 83.3%",
        "batch 3 of 400",
        "loss 0.1234",
        "1,234 images/s",
    ] * 2
    line = fitting(facts, width)
    assert cells(line) <= width
    assert any(line == "  ".join(facts[:n]) for n in range(1, len(facts) + 1))
    short = shortened("features: stage4 input, train", width)
    assert cells(short) <= width
    assert short in ("features: stage4 input, train", "features: stage4 …")


@pytest.mark.parametrize("width", WIDTHS)
def test_an_epoch_is_a_line_on_any_terminal(width: int) -> None:
    row = {"phase": "probe", "epoch": 100, "train_loss": 0.5, "val_loss": 0.4, "val_accuracy": 0.9, "lr": 1.23e-5}
    row |= {"val_macro_f1": 0.8, "images_per_second": 12345.0, "seconds": 1234.5}
    line = epoch_line(row, 100, width, best=True)
    assert cells(line) <= width
    assert "val_accuracy  90.0%" in line
    assert line.endswith("best")
    assert epoch_line(row, 100, 1000, best=True) == epoch_line(row, 100, best=True)


def test_a_command_that_is_wider_than_the_terminal_can_be_copied() -> None:
    folder, rate = "outputs/2026-11-26/15-19-50-a b-shapes-feature_extraction", "training.lr=interval(1e-4, 1e-2)"
    words = ["python", "-m", "tlx", "predict", folder, "photo.jpg", rate]
    lines = wrapped(f"to use the model: {shlex.join(words)}", 60)
    assert all(cells(line) <= max(60, len(folder) + 6) for line in lines)
    command = (
        "\n".join(lines).removeprefix("to use the model: ").replace("python -m tlx", "printf '%s\\n' python -m tlx")
    )
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == words
    request = f"printf '%s' \"$(echo some words {'and more ' * 5}| tr -d '\\n')\" | tr a-z A-Z"
    both = [request, "\n".join(wrapped(request, 40))]
    assert both[0] != both[1]
    assert len({subprocess.run(["sh", "-c", one], capture_output=True, check=True).stdout for one in both}) == 1
    assert not any("\\" in line for line in wrapped(f"missing: python -m tlx data fetch x, or give {'more ' * 20}", 60))


def test_a_sweep_knows_how_long_it_takes_from_jobs_of_one_kind_and_before_from_the_training() -> None:
    progress = SweepProgress("job", 4)
    with progress.job(0, "slow", ["slow", "fast"]):
        assert progress.now().facts == ["job 1 of 4"]
        with activity.doing(lambda: activity.State(["probe"], 0.5, left=1000.0)):
            assert progress.now().facts == ["job 1 of 4", "50 min 00 s left"]
        assert progress.now().facts == ["job 1 of 4", "50 min 00 s left"]  # while it is measured, too
    with progress.job(1, "slow", ["fast"]):
        state = progress.now()
        assert state.facts[0] == "job 2 of 4"
        assert 0.25 <= (state.share or 0) < 0.5
        assert state.facts[1].endswith(" s left")  # as long as the first has really taken


@pytest.mark.parametrize("width", [40, 60, *WIDTHS])
def test_a_table_leaves_out_columns_by_importance_before_it_does_not_fit(width: int) -> None:
    columns = [
        Column("configuration", ["strategy=finetune backbone=resnet18", "strategy=probe"], wraps=20, flush_left=True),
        Column("test accuracy", ["98.1%", "100.0%"]),
        *(Column(name, ["1,234,567", "12 min 03 s"], left_out=rank) for rank, name in enumerate("abcdefg", 1)),
        Column("difference", ["chosen", f"-1.2 (-3.4 to +5.6), p{UNBROKEN}0.54, worse"], wraps=20, flush_left=True),
    ]
    found = fitted(columns, width)
    if width == 40:
        assert found is None
        return
    assert found is not None
    lines, absent = found
    assert all(cells(line) <= width for line in lines)
    assert [c.name for c in absent] == list("gfedcba"[: len(absent)])
    assert (len(absent) == 7) == (width < 80)
    words = {
        word for c in columns if c not in absent for text in (c.name, *c.texts) for word in re.split("[ \0]", text)
    }
    assert words == set(" ".join(lines).split())
    assert any("p 0.54," in line for line in lines)


def test_a_watcher_is_called_when_an_activity_begins_in_any_thread() -> None:
    seen = list[str]()
    both = threading.Barrier(2)

    def beside() -> None:
        with activity.doing("beside"):
            both.wait()
            both.wait()

    with activity.watched(lambda: seen.append(activity.current()[0].facts[0])), activity.doing("outer"):
        thread = threading.Thread(target=beside)
        thread.start()
        both.wait()
        with activity.doing("inner"):
            both.wait()
            thread.join()
            assert activity.current()[0].facts == ("inner",)
        with activity.importing("sys"):  # imported already
            assert activity.current()[0].facts == ("outer",)
    assert seen == ["outer", "beside", "inner"]
    assert activity.current()[0].facts == ()


def typed(columns: int, *words: str, folder: Path) -> tuple[int, str]:
    """The exit code of a command, and what it writes on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    env |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tlx", *words], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=folder
    )
    os.close(theirs)
    written = b""
    try:
        while some := os.read(ours, 65536):
            written += some
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    return process.wait(), written.decode()


TINY = ("backbone=small_cnn", "backbone.input_size=16", "dataset.train=12", "dataset.test=9", "training.epochs=2")


def test_a_sweep_on_a_terminal_says_at_any_time_what_is_done_and_breaks_no_word(tmp_path: Path) -> None:
    words = ("-m", *TINY, "training.lr=0.001,0.0001", "sweep.name=rates", "tracking=none")
    code, written = typed(80, *words, folder=tmp_path)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", written).replace("\r", "\n")
    order = ["starting", "composing the jobs", "importing torch", "job 1 of 2", "job 2 of 2", "comparing the runs"]
    places = [plain.index(words) for words in order]
    assert places == sorted(places)
    assert re.search(r"job 2 of 2  .* left", plain)
    wide = [line for line in plain.splitlines() if cells(line) > 80]
    assert all(" " not in line.strip() for line in wide), wide  # a path, perhaps
    assert "\nconfiguration  " in plain[places[-1] :]  # a table
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor is back


def test_a_wrong_request_is_said_below_the_first_sign_and_completion_has_no_other(tmp_path: Path) -> None:
    code, written = typed(80, "training.lr=a", folder=tmp_path)
    assert code == 2
    assert -1 < written.index("starting") < written.index("tlx: training.lr=a")
    code, written = typed(80, "-sc", "install=bash", folder=tmp_path)
    assert code == 0
    assert "\x1b" not in written
