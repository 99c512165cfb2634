"""The store of feature rows: what is found is what was written; what a disk or another process does costs rows only.

A process that another one meets is a real one (`child`): it imports the store, runs some code, and may be killed.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tlx.cli import cache
from tlx.core import large_arrays
from tlx.core.errors import RequestError
from tlx.features import disk_block, disk_cache
from tlx.features.disk_cache import MARGIN, RowStore, mib

NAMESPACE, OTHER = "0123456789abcdef" * 2, "fedcba9876543210" * 2
WIDTH = 48
ABOUT = {"backbone": "resnet18", "stage": "layer4", "format": "bf16", "size": "512x7x7"}
LIMIT = 1 << 20


def key(number: int) -> str:
    return hashlib.sha1(str(number).encode()).hexdigest()


def row(name: str) -> bytes:
    """The row of a key: what a reader expects follows from the key alone."""
    return (bytes.fromhex(name) * WIDTH)[:WIDTH]


KEYS = [key(i) for i in range(20)]


class CacheFolder:
    """A store, the lines that it said, and short names for what tests do with it."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.said: list[str] = []
        self.folder, self.store = folder, RowStore(folder, limit, self.said.append)

    def write(self, keys: Sequence[str] = KEYS, namespace: str = NAMESPACE, about: Any = ABOUT) -> bool:
        with self.store.lock(namespace), self.store.write(namespace, keys, WIDTH, about) as rows:
            if rows is None:
                return False
            assert rows.shape == (len(keys), WIDTH)
            for i, name in enumerate(keys):
                rows[i] = np.frombuffer(row(name), np.uint8)
        return True

    def has(self, keys: Sequence[str] = KEYS, namespace: str = NAMESPACE) -> list[bool]:
        """Which keys are found; each with the row that is right for it."""
        found = self.store.find(namespace, keys, WIDTH)
        assert found.block.dtype == found.row.dtype == np.int64
        assert found.block.shape == found.row.shape == (len(keys),)
        assert set(found.block.tolist()) - {-1} == set(range(len(found.blocks))), "no block for nothing"
        for name, block, at in zip(keys, found.block, found.row, strict=True):
            assert block < 0 or found.blocks[block][at].tobytes() == row(name)
        assert found.missing.tolist() == [i for i, block in enumerate(found.block) if block < 0]
        return [block >= 0 for block in found.block]

    def blocks(self, namespace: str = NAMESPACE) -> list[Path]:
        return sorted(path.parent for path in (self.folder / namespace).glob("*/block.json"))

    def files(self) -> list[str]:
        """All that is there but locks."""
        return [str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.suffix != ".lock"]


@pytest.fixture
def cached(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path / "runs" / "features")


def changed(path: Path, content: bytes) -> None:
    """Another content, at another time: a clock may be too coarse to tell two writes apart."""
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before + 10**9, before + 10**9))


CHILD = """
import os, sys
import numpy as np
from pathlib import Path
from tlx.features.disk_cache import RowStore
KEYS = [f"{i:040x}" for i in range(4)]
def say(line): print(line, flush=True)
s = RowStore(Path(sys.argv[1]), int(sys.argv[2]), say)
"""


@contextlib.contextmanager
def child(folder: Path, code: str, limit: int = LIMIT) -> Iterator["subprocess.Popen[str]"]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD + code, str(folder), str(limit)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


# What is found.


def test_what_was_written_is_found_whichever_keys_are_requested_in_whichever_order(cached: CacheFolder) -> None:
    rng = np.random.default_rng(0)
    assert cached.has() == [False] * 20
    written: set[str] = set()
    for _ in range(4):  # blocks overlap
        some = [KEYS[i] for i in rng.choice(20, 5, replace=False)]
        assert cached.write(some)
        written |= set(some)
        requested = [KEYS[i] for i in rng.integers(0, 20, 50)]  # the same image may come twice
        assert cached.has(requested) == [name in written for name in requested]
    assert cached.has([]) == []
    assert cached.has(namespace=OTHER) == [False] * 20
    assert cached.said == []
    assert len(cached.blocks()) == 4
    assert {path.name for path in cached.blocks()[0].iterdir()} == {"rows.bin", "keys.bin", "block.json"}


def test_what_is_found_may_be_written_to_and_the_file_stays_as_it_is(cached: CacheFolder) -> None:
    cached.write()
    (rows,) = cached.store.find(NAMESPACE, KEYS, WIDTH).blocks
    rows[:] = 0
    disk_block._known.clear()
    assert all(cached.has())
    assert not rows.any()
    assert cached.said == []


def test_what_is_found_outlives_its_removal(cached: CacheFolder) -> None:
    cached.write()
    (rows,) = cached.store.find(NAMESPACE, KEYS, WIDTH).blocks
    assert cached.store.clear(None)[0] == 1
    assert [bytes(one) for one in rows] == [row(name) for name in KEYS]


@pytest.mark.parametrize("keys", [["00" * 19], ["zz" * 20], ["00" * 19, "00" * 19]])
def test_a_key_that_is_none_is_an_error_of_the_caller_and_leaves_nothing(cached: CacheFolder, keys: list[str]) -> None:
    with pytest.raises(ValueError, match=r"40 hex digits|hexadecimal"), cached.store.write(NAMESPACE, keys, 1, {}):
        pass
    assert not cached.blocks()


@pytest.mark.parametrize(("keys", "row_bytes"), [([], 4), (KEYS, 0)])
def test_nothing_takes_no_space(cached: CacheFolder, keys: list[str], row_bytes: int) -> None:
    with cached.store.write(NAMESPACE, keys, row_bytes, {}) as rows:
        assert rows is None
    assert not cached.folder.exists()


@pytest.mark.parametrize("error", [OSError("mine"), KeyboardInterrupt(), ValueError("mine")])
def test_an_exception_while_rows_are_computed_passes_and_leaves_nothing(
    cached: CacheFolder, error: BaseException
) -> None:
    def compute() -> None:
        with cached.store.lock(NAMESPACE), cached.store.write(NAMESPACE, KEYS, WIDTH, {}) as rows:
            assert rows is not None
            raise error

    with pytest.raises(type(error)) as caught:
        compute()
    assert caught.value is error
    assert cached.files() == cached.said == []
    assert list(cached.folder.iterdir()) == []  # the lock of an empty namespace, too


def test_a_limit_of_nothing_switches_the_store_off(tmp_path: Path, cached: CacheFolder) -> None:
    cached.write()
    off = CacheFolder(cached.folder, 0)
    assert off.has() == [False] * 20
    off = CacheFolder(tmp_path / "none", 0)
    assert not off.write()
    assert off.has() == [False] * 20
    assert not off.folder.exists()
    assert off.said == []


# Damage.

DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "rows cut": (lambda block: os.truncate(block / "rows.bin", 959), "rows.bin has 959 bytes, not 960"),
    "rows longer": (lambda block: os.truncate(block / "rows.bin", 961), "rows.bin has 961 bytes, not 960"),
    "rows empty": (lambda block: os.truncate(block / "rows.bin", 0), "rows.bin has 0 bytes, not 960"),
    "rows gone": (lambda block: (block / "rows.bin").unlink(), "rows.bin is missing"),
    "keys cut": (lambda block: os.truncate(block / "keys.bin", 380), "keys.bin has 380 bytes, not 400"),
    "keys gone": (lambda block: (block / "keys.bin").unlink(), "keys.bin is missing"),
    "head gone": (lambda block: (block / "block.json").unlink(), "block.json is missing"),
    "head cut": (lambda block: os.truncate(block / "block.json", 30), "block.json is not JSON"),
    "head empty": (lambda block: os.truncate(block / "block.json", 0), "block.json is not JSON"),
    "head binary": (lambda block: changed(block / "block.json", b"\xff\xfe{}"), "block.json is not JSON"),
    "head a list": (lambda block: changed(block / "block.json", b"[1]"), "block.json is not of format 1"),
    "head too deep": (lambda block: changed(block / "block.json", b"[" * 100_000), "block.json is not JSON"),
    "head a pipe": (lambda block: piped(block / "block.json"), "block.json is not a file"),
    "keys a pipe": (lambda block: piped(block / "keys.bin"), "keys.bin is not a file"),
    "rows a pipe": (lambda block: piped(block / "rows.bin"), "rows.bin is not a file"),
    "format": (lambda block: head(block, format=2), "block.json is not of format 1"),
    "format of words": (lambda block: head(block, format="1"), "block.json is not of format 1"),
    "more than is known": (lambda block: head(block, more=1), "block.json lacks something or has more"),
    "less rows": (lambda block: head(block, rows=10), "keys.bin has 400 bytes, not 200"),
    "rows of words": (lambda block: head(block, rows="20"), "block.json holds a value of a wrong kind"),
    "rows true": (lambda block: head(block, rows=True), "block.json holds a value of a wrong kind"),
    "rows negative": (lambda block: head(block, rows=-20), "block.json holds a value of a wrong kind"),
    "about": (lambda block: head(block, about=[]), "block.json holds a value of a wrong kind"),
    "other width": (lambda block: head(block, row_bytes=24), "rows of 24 bytes, not 48"),
    "checksum": (lambda block: head(block, rows_crc32=1), "rows.bin does not fit its checksum"),
}


def piped(path: Path) -> None:
    """Reading it would wait for somebody to write."""
    path.unlink()
    os.mkfifo(path)


def head(block: Path, **values: object) -> None:
    found = json.loads((block / "block.json").read_text())
    changed(block / "block.json", json.dumps({**found, **values}).encode())


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_block_is_reported_once_removed_and_missing(cached: CacheFolder, how: str) -> None:
    damage, why = DAMAGE[how]
    cached.write(KEYS[:5])
    whole = cached.blocks()[0]
    cached.write(KEYS)
    (block,) = set(cached.blocks()) - {whole}
    damage(block)
    assert cached.has() == [True] * 5 + [False] * 15 or whole > block
    cached.has()
    assert cached.said == [f"features: {block} is damaged ({why}); computed anew"]
    assert cached.has() == [True] * 5 + [False] * 15
    assert not block.exists()
    assert cached.write(KEYS[5:])
    assert all(cached.has())
    assert len(cached.said) == 1


@pytest.mark.parametrize("name", ["rows.bin", "keys.bin"])
def test_one_bit_anywhere_is_noticed(cached: CacheFolder, name: str) -> None:
    rng = np.random.default_rng(0)
    for i in range(20):
        cached.write()
        (block,) = cached.blocks()
        content = bytearray((block / name).read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        changed(block / name, bytes(content))
        assert not any(cached.has())
        assert cached.said[i:] == [f"features: {block} is damaged ({name} does not fit its checksum); computed anew"]


def test_rows_are_read_for_their_checksum_once_a_process(cached: CacheFolder) -> None:
    cached.write()
    (block,) = cached.blocks()
    before = (block / "rows.bin").stat().st_mtime_ns
    (block / "rows.bin").write_bytes(bytes(20 * WIDTH))
    os.utime(block / "rows.bin", ns=(before, before))  # nothing says that it has changed
    assert cached.store.find(NAMESPACE, KEYS, WIDTH).missing.size == 0
    disk_block._known.clear()  # as in another process
    assert cached.store.find(NAMESPACE, KEYS, WIDTH).missing.size == 20
    assert len(cached.said) == 1


def test_a_block_that_cannot_be_read_is_said_and_stays(cached: CacheFolder) -> None:
    cached.write()
    (block,) = cached.blocks()
    (block / "rows.bin").unlink()
    (block / "rows.bin").symlink_to("rows.bin")  # permissions do not stop root
    assert not any(cached.has())
    assert cached.said == [f"features: {block} cannot be read (Too many levels of symbolic links); computed anew"]
    assert block.exists()


@pytest.mark.parametrize("reader", ["read_head", "read_keys", "map_rows"])
def test_a_block_that_another_process_removes_meanwhile_is_missing(
    cached: CacheFolder, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached.write()
    read = getattr(disk_cache, reader)

    def too_late(place: Path, *rest: object) -> object:
        CacheFolder(cached.folder).store.clear(None)
        return read(place, *rest)

    monkeypatch.setattr(disk_cache, reader, too_late)
    assert not any(cached.has())
    assert cached.said == []


# Disks that do not take it.


@pytest.mark.parametrize("below", ["", "deeper"])
def test_where_the_folder_cannot_be_made_rows_are_computed_and_one_line_says_so(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    cached = CacheFolder(tmp_path / "file" / below)
    for _ in range(2):
        assert not cached.write()
        assert not cached.write(namespace=OTHER)
        assert not any(cached.has())
    assert cached.said == [
        f"features: cannot be kept in {cached.folder} (Not a directory); the next run computes them anew"
    ]
    assert cached.store.entries() == []
    assert cached.store.clear(None) == cached.store.clear([NAMESPACE]) == (0, 0)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite"])
def test_a_full_disk_is_said_once_before_anything_is_computed(tmp_path: Path, call: str) -> None:
    """A limit on a file's size stands for the disk; `pwrite` is how a system without `posix_fallocate` does it."""
    code = f"""
import resource
if {call!r} == "pwrite":
    del os.posix_fallocate
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))  # Python ignores the signal that comes with it
for width in (1_000_000, 200_000, 100_000, 1_000_000):
    with s.lock("ab" * 8), s.write("ab" * 8, KEYS, width, {{}}) as rows:
        say(f"{{width}} {{rows is not None}}")
        if rows is not None:
            rows[:] = 7
found = s.find("ab" * 8, KEYS, 100_000)
say(f"{{len(found.missing)}} {{[int(b.min()) for b in found.blocks]}}")
"""
    with child(tmp_path, code, limit=10**8) as process:
        said = process.communicate()[0].splitlines()
    full = f"features: cannot be kept in {tmp_path} (File too large); the next run computes them anew"
    assert said == [full, "1000000 False", "200000 False", "100000 True", "1000000 False", "0 [7]"]
    assert len(CacheFolder(tmp_path).files()) == 5  # the namespace, one block and its three files


def test_some_of_the_disk_is_left_for_what_a_run_writes(cached: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [MARGIN + 20 * (48 + 20) - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[0]))
    assert not cached.write(namespace=OTHER)
    assert cached.said == [
        f"features: cannot be kept in {cached.folder} (No space left on device); the next run computes them anew"
    ]
    free[0] += 1
    assert cached.write(namespace=OTHER)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space on a disk")
def test_the_space_is_taken_before_the_first_row(cached: CacheFolder) -> None:
    """Else a disk that fills up meanwhile ends the process (SIGBUS)."""
    with cached.store.lock(NAMESPACE), cached.store.write(NAMESPACE, KEYS, 10_000, {}):
        (file,) = cached.folder.glob("*/.*/rows.bin")
        assert file.stat().st_blocks * 512 >= 200_000


def test_a_system_that_cannot_reserve_space_writes_it(cached: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.setattr(large_arrays, "_COPIED", 100)
    assert cached.write()
    disk_block._known.clear()
    assert all(cached.has())
    assert cached.said == []


def test_a_disk_that_fails_at_the_end_costs_the_block_only(cached: CacheFolder) -> None:
    with cached.store.lock(NAMESPACE), cached.store.write(NAMESPACE, KEYS, WIDTH, {}) as rows:
        assert rows is not None
        for path in (cached.folder / NAMESPACE).iterdir():
            (path / "keys.bin").mkdir()  # in the way
    assert cached.said == [
        f"features: cannot be kept in {cached.folder} (Is a directory); the next run computes them anew"
    ]
    assert cached.files() == []


# The limit.


def test_more_than_the_limit_is_refused_and_costs_nothing_else(tmp_path: Path) -> None:
    cached = CacheFolder(tmp_path, 20 * (WIDTH + 20))
    for _ in range(2):
        assert not cached.write([*KEYS, key(99)])
    assert cached.said == [f"features: 1 KiB are more than {tmp_path} may hold (1 KiB); not kept"]
    assert cached.files() == []
    assert cached.write()
    assert all(cached.has())


def test_what_was_not_used_for_longest_goes_first_and_what_was_just_written_stays(tmp_path: Path) -> None:
    cached = CacheFolder(tmp_path, 10**6)
    each = 0
    for number, namespace in enumerate([NAMESPACE, OTHER, NAMESPACE, OTHER]):
        known = set(cached.blocks(NAMESPACE) + cached.blocks(OTHER))
        cached.write([key(number)], namespace)
        (block,) = set(cached.blocks(NAMESPACE) + cached.blocks(OTHER)) - known
        os.utime(block / "block.json", (1000 + number, 1000 + number))
        each = sum(path.stat().st_size for path in block.iterdir())

    def left() -> list[bool]:
        """Looks without using."""
        found = []
        for number, namespace in enumerate([NAMESPACE, OTHER, NAMESPACE, OTHER]):
            packed = bytes.fromhex(key(number))
            found.append(any((block / "keys.bin").read_bytes() == packed for block in cached.blocks(namespace)))
        return found

    assert left() == [True] * 4
    assert cached.has([key(0)]) == [True]  # used now: no longer the oldest
    small = CacheFolder(tmp_path, 3 * each + each // 2)
    assert small.write([key(5)])
    assert left() == [True, False, False, True]
    smallest = CacheFolder(tmp_path, each - each // 2 + WIDTH)
    assert smallest.write([key(6)], "ab" * 8)
    assert left() == [False] * 4
    assert smallest.has([key(6)], "ab" * 8) == [True]
    assert {path.name for path in tmp_path.iterdir()} == {"ab" * 8, f".{'ab' * 8}.lock"}  # emptied namespaces are gone
    assert cached.said == small.said == smallest.said == []


def test_many_processes_write_find_and_trim_at_once_and_never_meet_a_wrong_row(tmp_path: Path) -> None:
    code = """
import multiprocessing, hashlib
def work(number):
    lines = []
    s = RowStore(Path(sys.argv[1]), 3000, lines.append)
    for turn in range(25):
        namespace = f"{turn % 3:08x}"
        keys = [hashlib.sha1(f"{turn % 5} {i}".encode()).hexdigest() for i in range(4)]
        right = [bytes.fromhex(key) * 10 for key in keys]
        with s.lock(namespace):
            found = s.find(namespace, keys, 200)
            if len(found.missing):
                with s.write(namespace, [keys[i] for i in found.missing], 200, {}) as rows:
                    for at, i in enumerate(found.missing):
                        rows[at] = np.frombuffer(right[i], np.uint8)
        found = s.find(namespace, keys, 200)  # unlocked
        for i, (block, row) in enumerate(zip(found.block, found.row)):
            assert block < 0 or found.blocks[block][row].tobytes() == right[i]
        s.entries()
        if turn % 10 == number:
            s.clear(None)
    return [line for line in lines if "waiting" not in line]
if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with multiprocessing.Pool(3) as pool:
        say(sum(pool.map(work, range(3), chunksize=1), []))
"""
    with child(tmp_path, code) as process:
        assert process.communicate()[0].splitlines() == ["[]"]
    assert not [name for name in CacheFolder(tmp_path).files() if "/." in name]
    total = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert total <= 3000


# Other processes.

COMPUTE = """
with s.lock("ab" * 8):
    missing = s.find("ab" * 8, KEYS, 8).missing
    say(f"missing {len(missing)}")
    if len(missing):
        with s.write("ab" * 8, KEYS, 8, {}) as rows:
            rows[:2] = 1
            say("half")
            sys.stdin.readline()
            rows[2:] = 1
"""


def test_one_process_computes_and_the_other_waits_and_finds(tmp_path: Path) -> None:
    with child(tmp_path, COMPUTE) as first:
        assert [line(first), line(first)] == ["missing 4", "half"]
        with child(tmp_path, COMPUTE) as second:
            assert line(second) == "features: another process computes the same; waiting for it"
            go_on(first)
            assert line(second) == "missing 0"
            assert second.wait() == first.wait() == 0


def test_a_killed_process_leaves_nothing_that_is_found_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    cached = CacheFolder(tmp_path)
    with child(tmp_path, COMPUTE) as first:
        assert [line(first), line(first)] == ["missing 4", "half"]
        assert cached.store.clear(None) == (0, 0)  # it is being written
        first.kill()
        first.wait()
    assert [(entry.images, entry.blocks) for entry in cached.store.entries()] == [(0, 0)]
    keys = [f"{i:040x}" for i in range(4)]
    assert not any(cached.has(keys, "ab" * 8))
    assert len(cached.files()) == 3  # the namespace, a folder, rows.bin
    with cached.store.lock("ab" * 8):
        assert cached.files() == ["ab" * 8]
    assert cached.files() == []
    assert cached.said == []  # the lock was free: the system released it


@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize("how", ["trimming", "clearing"])
def test_what_a_killed_process_left_in_another_space_goes_too(cached: CacheFolder, how: str, whole: int) -> None:
    if whole:
        cached.write(namespace=OTHER)
    left = cached.folder / OTHER / f".{'0' * 16}"
    left.mkdir(parents=True)
    (left / "rows.bin").write_bytes(bytes(100))
    if how == "trimming":
        cached.write()
        assert len(cached.blocks(OTHER)) == whole
    else:
        before = sum(path.stat().st_size for path in (cached.folder / OTHER).rglob("*") if path.is_file())
        assert cached.store.clear(None) == (1, before)
        assert not (cached.folder / OTHER).exists()
    assert not left.exists()


# What is listed and removed.


def test_entries_say_what_is_kept_the_last_used_first(cached: CacheFolder) -> None:
    cached.write(KEYS[:5])
    cached.write(KEYS[5:], about={**ABOUT, "stage": "layer3"})
    cached.write(KEYS[:1], OTHER, about={})
    for block, used in zip([*cached.blocks(OTHER), *cached.blocks()], [3000, 1000, 2000], strict=True):
        os.utime(block / "block.json", (used, used))
    first, second = cached.store.entries()
    assert (first.namespace, first.about, first.images, first.used, first.blocks) == (OTHER, {}, 1, 3000, 1)
    assert (second.namespace, second.images, second.used, second.blocks) == (NAMESPACE, 20, 2000, 2)
    newest = json.loads((cached.blocks()[1] / "block.json").read_text())
    assert second.about == newest["about"]
    assert second.bytes == sum(
        path.stat().st_size for path in (cached.folder / NAMESPACE).rglob("*.*") if path.is_file()
    )
    assert cached.store.clear([NAMESPACE]) == (1, second.bytes)
    assert [entry.namespace for entry in cached.store.entries()] == [OTHER]


def test_what_is_not_the_stores_is_neither_listed_nor_removed(cached: CacheFolder) -> None:
    cached.write()
    for mine in ("notes.txt", "extract/main.py", f"{NAMESPACE}/notes.txt", f"{NAMESPACE}/mine/a"):
        (cached.folder / mine).parent.mkdir(exist_ok=True)
        (cached.folder / mine).write_text("mine")
    assert cached.store.clear(None)[0] == 1
    assert {name for name in cached.files() if (cached.folder / name).is_file()} == {
        "notes.txt", "extract/main.py", f"{NAMESPACE}/notes.txt", f"{NAMESPACE}/mine/a"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 KiB"), (1024, "1 KiB"), (3 << 19, "1.5 MiB"), (1 << 30, "1,024 MiB")]
)
def test_bytes_for_people(size: int, text: str) -> None:
    assert mib(size) == text


# The subcommand.


@pytest.fixture
def run_cache(cached: CacheFolder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(cached.folder.parent.parent)

    def types(*words: str) -> int:
        return cache.SUBCOMMAND.main(["--output", "runs", *words])

    return types


@pytest.mark.parametrize("words", [[], ["clear"]])
@pytest.mark.parametrize("there", [False, True])
def test_without_features_the_subcommand_says_so(
    run_cache: Callable[..., int],
    cached: CacheFolder,
    words: list[str],
    there: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if there:
        cached.folder.mkdir(parents=True)
    assert run_cache(*words) == 0
    assert capsys.readouterr() == ("no features are cached in runs/features\n", "")
    assert cached.folder.exists() == there


def test_the_subcommand_lists_and_removes(
    run_cache: Callable[..., int], cached: CacheFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    cached.write()
    cached.write(KEYS[:1], OTHER, about={"backbone": "vgg16"})
    (cached.folder / ("ab" * 8) / f".{'0' * 16}").mkdir(parents=True)
    (cached.folder / ("ab" * 8) / f".{'0' * 16}" / "rows.bin").write_bytes(bytes(2048))
    assert run_cache() == 0
    out = capsys.readouterr().out.splitlines()
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(r"what +images +size +last used +id", out[0])
    rows = sorted(out[1:4])
    assert re.fullmatch(r"being written, or left unfinished +0 +2 KiB +- +abababababab", rows[0])
    assert re.fullmatch(rf"resnet18 layer4 bf16 512x7x7 +20 +2 KiB +{date} +{NAMESPACE[:12]}", rows[1])
    assert re.fullmatch(rf"vgg16 +1 +0 KiB +{date} +{OTHER[:12]}", rows[2])
    assert len({len(one) for one in out[:4]}) == 1, "columns are aligned"
    assert out[4:] == ["3 entries, 4 KiB, in runs/features"]

    assert run_cache("clear", NAMESPACE[:12], NAMESPACE) == 0
    assert capsys.readouterr() == ("removed 1 entry, 2 KiB, from runs/features\n", "")
    assert [entry.namespace for entry in cached.store.entries()] == [OTHER, "ab" * 8]
    assert run_cache("clear") == 0
    assert capsys.readouterr() == ("removed 2 entries, 2 KiB, from runs/features\n", "")
    assert cached.files() == []


def test_the_subcommand_prints_nothing_that_changes_a_screen(
    run_cache: Callable[..., int], cached: CacheFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    cached.write(about={"backbone": "\x1b[2Jgone"})
    assert run_cache() == 0
    assert "\\x1b[2Jgone" in capsys.readouterr().out


def test_the_subcommand_says_what_is_in_use(
    run_cache: Callable[..., int], cached: CacheFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with cached.store.lock(NAMESPACE), cached.store.write(NAMESPACE, KEYS, WIDTH, {}):
        assert run_cache("clear") == 1
        out, err = capsys.readouterr()
        assert out == "removed 0 entries, 0 KiB, from runs/features\n"
        assert err == f"still there, in use or not yours to remove: {NAMESPACE[:12]}\n"
    assert cached.store.find(NAMESPACE, KEYS, WIDTH).missing.size == 0


WRONG = {
    "claer": "claer: not something that cache does (did you mean 'clear'?); "
    "`cache` lists, `cache clear` removes all, `cache clear ID…` some",
    "clear 0123456789ac": "0123456789ac: no such id in runs/features (did you mean '0123456789ab'?); "
    "`cache` without clear lists them",
    "clear nothing": "nothing: no such id in runs/features; `cache` without clear lists them",
    "clear 01234": "01234: could be 0123456789ab, 012340000000; give more digits",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_the_subcommand_cannot_do_is_refused_and_removes_nothing(
    run_cache: Callable[..., int], cached: CacheFolder, words: str
) -> None:
    for number, namespace in enumerate(["0123400000000000", NAMESPACE]):
        cached.write(namespace=namespace)
        os.utime(cached.blocks(namespace)[0] / "block.json", (1000 + number, 1000 + number))
    before = cached.files()
    with pytest.raises(RequestError) as caught:
        run_cache(*words.split())
    assert str(caught.value) == WRONG[words]
    assert cached.files() == before


def test_a_file_in_the_folders_place_is_refused(run_cache: Callable[..., int], cached: CacheFolder) -> None:
    cached.folder.parent.mkdir()
    cached.folder.write_text("mine")
    with pytest.raises(RequestError) as caught:
        run_cache("clear")
    expected = "runs/features: a file, not the folder of cached features; name the runs' folder with --output"
    assert str(caught.value) == expected
