"""Output that is not UTF-8: what a screen cannot show is replaced, for every stream and subcommand; files are UTF-8."""

import contextlib
import csv
import io
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.inference.test_predictor import write_images
from tlx.cli.main import main
from tlx.cli.subcommands import subcommands
from tlx.core import output_streams

NAMES = ("größe", "мир")
ENCODINGS = ("ascii", "cp1252", "latin-1")


class Screen:
    """stdout and stderr in an encoding, with Python's own ways of dealing with errors there."""

    def __init__(self, encoding: str, patch: pytest.MonkeyPatch) -> None:
        self.encoding, self.patch = encoding, patch

    def types(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """The exit code of a command, and what it showed."""
        out = io.TextIOWrapper(io.BytesIO(), self.encoding, write_through=True)
        err = io.TextIOWrapper(io.BytesIO(), self.encoding, "backslashreplace", write_through=True)
        with self.patch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), self.encoding))
            code = main(arguments)
        shown = [stream.buffer.getvalue().decode(self.encoding) for stream in (out, err)]  # type: ignore[attr-defined]
        return code, shown[0], shown[1]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "d", NAMES, 6)
    return tmp_path


DATA = ["dataset=image_folder", "dataset.root=d"]
FAST = [*DATA, "backbone=small_cnn", "backbone.input_size=16", "strategy=scratch", "training.epochs=1", "tracking=none"]


RUN = "outputs/größe … run"


def shows(screen: Screen, *arguments: str, stdin: bytes = b"") -> str:
    code, out, err = screen.types(*arguments, stdin=stdin)
    assert code == 0, err
    assert "Traceback" not in err
    return out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_screen_that_is_not_utf_8_shows_a_run_and_its_predictions(
    encoding: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen(encoding, monkeypatch)
    assert "tlx: a transfer-learning framework" in shows(screen, "--help")
    whole = shows(screen, *FAST, f"hydra.run.dir={RUN}")
    assert r"\u043c\u0438\u0440" in whole
    assert ("größe" if encoding != "ascii" else r"gr\xf6\xdfe") in whole
    assert r"\u043c\u0438\u0440" in shows(screen, "predict", RUN, "d", "--csv")
    assert r"\u043c\u0438\u0440" in shows(screen, "predict", RUN, "d", "--top", "1")
    rows = [json.loads(line) for line in shows(screen, "predict", RUN, "d", "--json").splitlines()]
    assert {name for row in rows for name in row["probabilities"]} == set(NAMES)
    assert {row["file"] for row in rows} == {f"d/{name}/{i}.png" for name in NAMES for i in range(6)}
    listed = os.fsencode("d/größe/0.png\nd/мир/0.png\n")
    assert len(shows(screen, "predict", RUN, "-", "--json", stdin=listed).splitlines()) == 2
    code, _, err = screen.types("predict", RUN, "мир.png")
    assert code == 2
    assert err.splitlines()[-1] == r"tlx: \u043c\u0438\u0440.png: no such file or folder"
    with Path(RUN, "predictions.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["label"] for row in csv.DictReader(stream)} == set(NAMES)
    assert json.loads(Path(RUN, "summary.json").read_text(encoding="utf-8"))["classes"] == list(NAMES)
    assert "größe" in Path(RUN, "tlx.log").read_text(encoding="utf-8")


def test_every_subcommand_ends_well_on_a_screen_in_ascii(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen("ascii", monkeypatch)
    shows(screen, "-m", *FAST, "seed=0,1", "sweep.name=größe")
    run, _ = map(str, Path("outputs/sweeps/größe").glob("small_cnn-*"))
    shows(screen, "evaluate", run, *DATA, "--csv", "e.csv", "--json", "e.json")
    with Path("e.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["label"] for row in csv.DictReader(stream)} == set(NAMES)
    shows(screen, "compare", "größe")
    shows(screen, "--dry-run", *FAST)
    shows(screen, "--cfg", "job", *FAST)
    shows(screen, "cache")
    for name in subcommands():
        with pytest.raises(SystemExit) as ended:  # argparse's own help
            screen.types(name, "--help")
        assert ended.value.code == 0


C_LOCALE = """
import sys
from tlx.cli.main import main
for words in (
    sys.argv[1:], ["predict", "outputs/run", "d"], ["predict", "outputs/run", "d", "--csv", "p.csv"],
    ["evaluate", "outputs/run", "dataset=image_folder", "dataset.root=d"],
):
    code = main(words)
    if code:
        sys.exit(f"{words}: {code}")
"""


def test_the_c_locale_changes_nothing_in_the_files_of_a_run_and_in_mlflow(here: Path) -> None:
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error::EncodingWarning", "-c", C_LOCALE, *FAST[:-1], "hydra.run.dir=outputs/run"],
        cwd=here, env={**os.environ, **environment}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert rb"gr\xf6\xdfe" in done.stdout
    assert b"MLflow (" not in done.stderr  # a warning that it failed
    assert json.loads((here / "outputs/run/summary.json").read_text("utf-8"))["classes"] == list(NAMES)
    for file, column in ("outputs/run/predictions.csv", "label"), ("p.csv", "prediction"):
        with (here / file).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert {row[column] for row in rows} <= set(NAMES)
        assert all(re.search(r"(größe|мир)/\d\.png", row["file"]) for row in rows)
    with contextlib.closing(sqlite3.connect(here / "outputs/mlflow.db")) as database:
        assert database.execute("SELECT status FROM runs").fetchall() == [("FINISHED",)]
        assert len(database.execute("SELECT * FROM logged_models").fetchall()) == 1


def test_what_cannot_be_shown_is_readable() -> None:
    def shown(text: str, encoding: str, errors: str = "strict") -> bytes:
        stream = io.TextIOWrapper(io.BytesIO(), encoding, errors, write_through=True)
        output_streams.use((stream, None))
        stream.write(text)
        return stream.buffer.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert shown("a … b → 2 × 3 ± 1 ö я", "ascii") == rb"a ... b -> 2 x 3 +- 1 \xf6 \u044f"
    assert shown("a … ö →", "cp1252") == "a … ö ->".encode("cp1252")
    assert shown("größe \udcff", "utf-8") == "größe \\udcff".encode()
    assert shown("ö", "ascii", "replace") == b"?"  # as it was requested
    assert shown(os.fsencode("größe").decode("ascii", "surrogateescape"), "ascii", "surrogateescape") == rb"gr\xf6\xdfe"


LIVE = """
import sys, time
from tlx.core.activity import State, doing
from tlx.reporting import rich_console as terminal
from tlx.reporting.screen import live
with live("größe … " * 30):
    time.sleep(0.3)
    print("мир …", file=sys.stderr)
    with doing(lambda: State(["größe"], 0.5)):
        time.sleep(0.3)
terminal.tables([("class", "мир →")], [("class", "F1"), ("größe", "0.5")], "…", sys.stderr)
"""


def test_a_live_line_on_a_terminal_in_ascii() -> None:
    ours, theirs = pty.openpty()
    environment: dict[str, Any] = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    code = f"from tlx.core import output_streams as streams; streams.use()\n{LIVE}"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env={**environment, "COLUMNS": "60"})
    os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert process.wait() == 0, seen
    assert seen.isascii()
    assert rb"\u043c\u0438\u0440 ..." in seen
    assert rb"gr\xf6\xdfe" in seen
