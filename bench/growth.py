"""Time and memory against a number, such as that of the images: one JSON file of results, a table and a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlx.core.atomic_files import atomic

Row = Mapping[str, Any]
"""One process.

`series`: what was run, `number`: of what; `seconds`, and `busy`, those of processors; `peak_mib`: resident, and
`own_mib`, what of that is no page of a file; `processor`. `failed` or `unfinished`: the last line of one that ended
badly, or is to go on.
"""


def known(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of results; none where there is no such file."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return found


def add(path: Path, row: Row) -> None:
    """Puts a row into a file of results, in place of an older one of the same series and number."""
    others = [old for old in known(path) if (old["series"], old["number"]) != (row["series"], row["number"])]
    with atomic(path) as temporary:
        temporary.write_text(json.dumps([*others, row], indent=1), encoding="utf-8")


def table(rows: Sequence[Row], of: str, time: str = "seconds") -> str:
    """Markdown: a row a series, with seconds and MiB for each number. `of`: what is counted, as `images`.

    `time`: `seconds`, or `busy`, which other work on the same machine does not lengthen.
    The last columns are between the smallest and the largest number: ms and KiB of each further one.
    """
    numbers = sorted({row["number"] for row in rows})
    titles = [f"{number:,} {of}" for number in numbers]
    lines = [
        f"| | {' | '.join(titles)} | ms a further one | KiB a further one |",
        "|---" + "|---:" * (len(titles) + 2) + "|",
    ]
    for series, found in _by_series(rows).items():
        cells = [_cell(found.get(number), time) for number in numbers]
        good = sorted(number for number, row in found.items() if not _bad(row))
        more = ["–", "–"]
        if len(good) > 1:
            first, last, further = found[good[0]], found[good[-1]], good[-1] - good[0]
            seconds, mib = last[time] - first[time], last["peak_mib"] - first["peak_mib"]
            more = [f"{1000 * seconds / further:.2f}", f"{1024 * mib / further:.1f}"]
        lines.append(f"| {series} | {' | '.join(cells)} | {' | '.join(more)} |")
    return "\n".join(lines)


def _by_series(rows: Sequence[Row]) -> dict[str, dict[int, Row]]:
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        found.setdefault(row["series"], {})[row["number"]] = row
    return found


def _bad(row: Row) -> bool:
    return "failed" in row or "unfinished" in row


def _cell(row: Row | None, time: str) -> str:
    if row is None:
        return "–"
    return "–" if _bad(row) else f"{row[time]:.1f} s, {row['peak_mib']:,.0f} MiB"


def chart(rows: Sequence[Row], of: str, path: Path, time: str = "seconds") -> None:
    """A PNG: on the left the time of each one, on the right the peak memory, both against the number.

    `time`: as of `table`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained", dpi=150)
    times, memory = figure.subplots(1, 2)
    one = {"classes": "class"}.get(of, of.removesuffix("s"))
    kind = "processor time" if time == "busy" else "time"
    for place, (series, found) in enumerate(_by_series(rows).items()):
        good = [found[number] for number in sorted(found) if not _bad(found[number])]
        numbers = [row["number"] for row in good]
        style = {"marker": "os^Dv"[place // 10 % 5], "markersize": 4, "linewidth": 1.2, "label": series}
        times.plot(numbers, [1000 * row[time] / row["number"] for row in good], color=f"C{place}", **style)
        memory.plot(numbers, [row["peak_mib"] for row in good], color=f"C{place}", **style)
    times.set(title=f"{kind} of each {one}, ms", xlabel=of, xscale="log", yscale="log")
    memory.set(title="peak memory, MiB", xlabel=of, xscale="log", ylim=(0, None))
    for axes in (times, memory):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.legend(*times.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    where = sorted({row["processor"] for row in rows})
    figure.suptitle(f"on {', '.join(where)}", fontsize=9, color="#444444")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")
