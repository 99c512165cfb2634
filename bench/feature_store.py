"""python -m bench.feature_store: what the rows of many images cost in the store, beside what computes them.

Fills a store with rows of so many bytes, in blocks of 8,192, and measures, in a process each and from the page cache,
what runs do that share the work: finding which rows are missing, and finding all and reading each for its checksum.
Processor seconds, and the peak memory, less those of a process that does neither.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.runner import Unmeasured, answered, process
from bench.scale import machine
from bench.works import python
from tlx.features.disk_cache import RowStore

BLOCK = 8192  # rows
STORE = """
import sys
from pathlib import Path
from tlx.features.disk_cache import RowStore
from tlx.features.feature_sharing import MissingRows
store, n, row = RowStore(Path(sys.argv[1]), 1 << 62, print), int(sys.argv[2]), int(sys.argv[3])
keys = [f"{i:040x}" for i in range(n)]
"""
WAYS = {
    "neither": "",
    "finding what is missing": "missing = MissingRows(store, 'rows', keys, row)\nprint(0 if missing.any() else n)",
    "finding and checking all rows": "print((store.find('rows', keys, row).block >= 0).sum())",
}


def fill(folder: Path, n: int, row: int) -> None:
    """Writes the rows, of random bytes."""
    store, random = RowStore(folder, 1 << 62, print), np.random.default_rng(0)
    for start in range(0, n, BLOCK):
        keys = [f"{i:040x}" for i in range(start, min(start + BLOCK, n))]
        with store.lock("rows"), store.write("rows", keys, row, {}) as rows:
            if rows is None:
                raise Unmeasured("the store takes no rows")
            rows[:] = random.integers(0, 256, rows.shape, dtype=np.uint8)


def table(n: int, row: int) -> str:
    """The table.

    Raises:
        Unmeasured: a process failed, or did not find all rows.
    """
    found = {}
    with tempfile.TemporaryDirectory(prefix="tlx-bench-") as place:
        fill(Path(place), n, row)
        for name, code in WAYS.items():
            done = process(python(["-c", STORE + code, place, str(n), str(row)]))
            if done.code or (code and done.out.strip() != str(n)):
                raise Unmeasured(f"{name}: {done.error or done.out}")
            found[name] = done
    lines = [f"On {machine()}, {n:,} rows of {row:,} bytes", "", "| | seconds a million | MiB a million |"]
    lines.append("|---|---:|---:|")
    bare = found.pop("neither")
    for name, done in found.items():
        seconds, mib = (1e6 / n * more for more in (done.busy - bare.busy, done.peak_mib - bare.peak_mib))
        lines.append(f"| {name} | {seconds:.1f} | {mib:.0f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the table; exit codes as tlx's."""
    parser = argparse.ArgumentParser(prog="python -m bench.feature_store", description=str(__doc__).partition(": ")[2])
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--bytes", type=int, default=2048, help="of a row (default: 512 numbers in fp32)")
    given = parser.parse_args(argv)
    return answered(lambda: table(given.rows, given.bytes))


if __name__ == "__main__":
    sys.exit(main())
