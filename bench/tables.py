"""From the repetitions to medians and ratios, a Markdown table and a bar chart."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.runner import SAMPLE
from bench.works import BY_NAME, LOOPS, Claim, Work

NAMES = {"plain": "plain loop", "careful": "careful loop", "lightning": "Lightning", "fastai": "fastai"}
# Student's t, 97.5 %, by degrees of freedom 1…9.
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
FIGURES = ("seconds", "wall", "training", "images_per_second", "peak_share", "peak_mib")


def rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a work: `medians` (contender → figures) and `claims`, or `accuracy` (contender → mean, half) and
    `difference`; `met` says whether the required ratio is reached, None where that cannot be said."""
    return [_row(BY_NAME[name], results) for name in results["works"]]


def _row(work: Work, results: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in results["repetitions"]:
        if one["work"] == work.name and "failed" not in one:
            found.setdefault(one["contender"], []).append(one)
    medians = {
        contender: {key: statistics.median(o[key] for o in ones) for key in FIGURES if key in ones[0]}
        for contender, ones in found.items()
    }
    row: dict[str, Any] = {"work": work.name, "title": work.title, "medians": medians}
    if work.measure == "accuracy":
        return row | _accuracies(work, {name: ones[0]["accuracy"] for name, ones in found.items()})
    figure = "images_per_second" if work.measure == "rate" else "seconds"
    of_two_cores = results["machine"]["gpu"] and not work.cuda  # the ratios there are required of CPUs
    claims = []
    for claim in work.claims:
        if claim.contender not in medians or claim.against not in medians:
            continue
        one, other = medians[claim.contender][figure], medians[claim.against][figure]
        ratio = one / other if claim.at_most or work.measure == "rate" else other / one
        met = None if of_two_cores else ratio <= claim.ratio if claim.at_most else ratio >= claim.ratio
        claims.append({"contender": claim.contender, "against": claim.against, "ratio": ratio, "met": met})
    return row | {"claims": claims}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval (Student's t); infinite for one value."""
    n = len(values)
    if n == 1:
        return values[0], math.inf
    t = T975[n - 2] if n - 2 < len(T975) else T975[-1]
    return statistics.mean(values), t * statistics.stdev(values) / math.sqrt(n)


def _accuracies(work: Work, found: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Means, and the difference of the two, which are paired by seed."""
    row: dict[str, Any] = {"accuracy": {name: interval(values) for name, values in found.items()}, "met": None}
    if len(found) == 2:
        one, other = (found[name] for name in work.variants)
        mean, half = row["difference"] = interval([a - b for a, b in zip(one, other, strict=True)])
        row["differs"] = abs(mean) > half
        row["met"] = mean >= -(interval(other)[1] if work.within is None else work.within)
    return row


def brief(figures: Mapping[str, Any]) -> str:
    """A repetition in a few words."""
    words = [f"{figures['seconds']:.1f} s"] if "seconds" in figures else []
    words += [f"{figures['images_per_second']:,.0f} images/s"] if "images_per_second" in figures else []
    return ", ".join([*words, f"ran {figures['wall']:.1f} s", f"{figures['peak_mib']:,.0f} MiB"])


def markdown(results: Mapping[str, Any]) -> str:
    """`results.md`; `results` with its `rows`."""
    speed = [row for row in results["rows"] if "claims" in row]
    accuracy = [row for row in results["rows"] if "accuracy" in row]
    parts = ["# tlx against the loop that a user writes", _machine(results)]
    if speed:
        parts += [_method(results), _speeds(speed, results), "## How the machine was used", _USED, _details(speed)]
    if accuracy:
        parts += ["## Accuracy", _ACCURACY, _probes(accuracy)]
    failed = {(one["work"], one["contender"]): one["failed"] for one in results["repetitions"] if "failed" in one}
    notes = [f"- {name}: left out, {why}" for name, why in results["left_out"].items()]
    notes += [f"- {name}, {contender}: failed: {why}" for (name, contender), why in failed.items()]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"


_USED = (
    "Images a second are those of an epoch, trained and validated on, times the epochs, by the seconds of training; of "
    "peak: FLOPs of the network (a backward pass counts twice) by those seconds, for tlx of the frozen part's one pass "
    "by that pass's seconds, against a large matrix product in the same number format. Memory: the largest process."
)
_ACCURACY = (
    "Mean test accuracy of 10 seeds with its 95 % interval, and the difference with its own, paired by seed; they "
    "differ where that interval leaves out 0."
)


def _machine(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    units = "AMX bf16" if machine["amx_bf16"] else "no AMX"
    peaks = ", ".join(f"{name} {value / 1e12:.2f} TFLOP/s" for name, value in machine["peak"].items())
    peaks += "" if "bf16" in machine["peak"] else ", bf16 not measured (no units for it)"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    where = f"{machine['processor']}, {machine['cores']} cores, {units}{gpu}"
    return f"{results['date'][:10]}, on {where}; a large matrix product: {peaks}. {versions}."


def _method(results: Mapping[str, Any]) -> str:
    ran = "The loops ran all their epochs."
    if not results["whole"]:
        ran = (
            f"The loops ran {SAMPLE} epochs; their time is the first plus the median of the later ones for each other."
        )
    careful = "The careful loop adds bf16 autocast, channels_last and pinned memory. "
    careful = careful if "bf16" in results["machine"]["peak"] else ""
    rounds = "One round" if results["rounds"] == 1 else f"Medians of {results['rounds']} rounds"
    return (
        f"{rounds}; in a round each contender runs once, in turn, in a process of its own. {ran} {careful}"
        "The loops train on all training images and look at the test images after each epoch; tlx keeps a fifth of "
        "ants/bees' training images for validation and looks at the test images before and after training, which is "
        "not in its seconds of training; where a row names the numbers of images, both have as many. Networks of the "
        "rows on speed have random weights, and tlx begins each repetition with an empty store."
    )


def _speeds(speed: Sequence[Mapping[str, Any]], results: Mapping[str, Any]) -> str:
    head = ["work", *NAMES.values(), "tlx", "ratio", "required"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in speed:
        work, medians = BY_NAME[row["work"]], row["medians"]
        absent = results["absent"].get(work.name, {})
        loops = [
            _time(medians[name]) if name in medians else "not installed" if name in absent else "–" for name in LOOPS
        ]
        made = {(claim["contender"], claim["against"]): claim for claim in row["claims"]}
        for claim in work.claims:
            if claim.contender not in work.contenders(results["machine"]):
                continue
            lines.append([_titled(work, claim), *loops, *_claimed(work, claim, medians, made)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _titled(work: Work, claim: Claim) -> str:
    if "tlx fp32" not in work.variants:
        return work.title
    return f"{work.title}, {'fp32' if claim.contender == 'tlx fp32' else 'bf16'}"


def _claimed(work: Work, claim: Claim, medians: Mapping[str, Any], made: Mapping[Any, Mapping[str, Any]]) -> list[str]:
    sign = "≤" if claim.at_most else "≥"
    required = f"{sign} {claim.ratio:g}×"
    own = medians.get(claim.contender, {})
    figures = "–" if not own else f"{own['images_per_second']:,.0f} images/s" if work.measure == "rate" else _time(own)
    found = made.get((claim.contender, claim.against))
    if found is None:
        return [figures, "–", required]
    of = "" if claim.against == "plain" else f" of {NAMES.get(claim.against, claim.against)}"
    reached = {True: ", met", False: ", not met", None: " on 2 CPU cores"}[found["met"]]
    return [figures, f"{found['ratio']:.3g}×{of}", f"{required}{reached}"]


def _time(figures: Mapping[str, float]) -> str:
    return f"{figures['seconds']:.1f} s" if "seconds" in figures else "–"


def _details(speed: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| work | contender | images/s | of peak | memory |", "| --- | --- | ---: | ---: | ---: |"]
    for row in speed:
        for number, (contender, own) in enumerate(row["medians"].items()):
            title = "" if number else row["title"]
            rate = f"{own['images_per_second']:,.0f}" if "images_per_second" in own else "–"
            share = f"{own['peak_share']:.0%}" if "peak_share" in own else "–"
            who = NAMES.get(contender, contender)
            lines.append(f"| {title} | {who} | {rate} | {share} | {own['peak_mib']:,.0f} MiB |")
    return "\n".join(lines)


def _probes(accuracy: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| work | | | difference | differ | required |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for row in accuracy:
        work = BY_NAME[row["work"]]
        both = [_mean(name, row["accuracy"].get(name)) for name in work.variants]
        difference = "–"
        if "difference" in row:
            mean, half = row["difference"]
            difference = f"{100 * mean:+.2f} ± {100 * half:.2f} points"
        last = list(work.variants)[-1]
        wanted = f"within the interval of {last}" if work.within is None else f"within {100 * work.within:g} point"
        met = {True: ", met", False: ", not met", None: ""}[row["met"]]
        differ = {True: "yes", False: "no", None: "–"}[row.get("differs")]
        lines.append(f"| {work.title} | {both[0]} | {both[1]} | {difference} | {differ} | {wanted}{met} |")
    return "\n".join(lines)


def _mean(name: str, found: Sequence[float] | None) -> str:
    return f"{name}: {100 * found[0]:.1f} ± {100 * found[1]:.1f} %" if found else f"{name}: –"


def _in_two(label: str) -> str:
    """Two lines, broken behind the comma or colon nearest to the middle."""
    middle = min((found.end() for found in re.finditer("[,:] ", label)), key=lambda end: abs(2 * end - len(label)))
    return f"{label[:middle].rstrip()}\n{label[middle:]}"


def chart(results: Mapping[str, Any], path: Path) -> None:
    """`results.png`: for each work, how many times as fast as the plain loop tlx is, and as the careful one."""
    from matplotlib.figure import Figure

    bars: list[tuple[str, list[float]]] = []
    for row in results["rows"]:
        work, medians = BY_NAME[row["work"]], row["medians"]
        for claim in work.claims:
            if claim.contender in medians and "plain" in medians and (label := _titled(work, claim)) not in dict(bars):
                own = medians[claim.contender]["seconds"]
                others = [medians[name]["seconds"] for name in ("plain", "careful") if name in medians]
                bars.append((label, [other / own for other in others]))
    figure = Figure(figsize=(9, 1.3 + 0.62 * max(len(bars), 1)), layout="constrained", dpi=150)
    axes = figure.subplots()
    styles = (("as the plain loop", "#1f5fa8", 0.2), ("as the careful loop (bf16, channels_last)", "#a9c4e4", -0.2))
    for number, (name, color, shift) in enumerate(styles):
        places = [i for i, (_, ratios) in enumerate(reversed(bars)) if len(ratios) > number]
        if not places and number:
            continue
        ratios = [list(reversed(bars))[i][1][number] for i in places]
        drawn = axes.barh([i + shift for i in places], ratios, height=0.38, color=color, label=name)
        axes.bar_label(drawn, [f"{r:.0f}×" if r >= 9.95 else f"{r:.1f}×" for r in ratios], padding=4, fontsize=9)
    axes.set_yticks(range(len(bars)), [_in_two(label) for label, _ in reversed(bars)])
    axes.axvline(1, color="#444444", linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1.12 * max((max(ratios) for _, ratios in bars), default=1.0))
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    machine = results["machine"]
    where = machine["gpu"] or f"{machine['cores']} CPU cores{' with AMX' if machine['amx_bf16'] else ''}"
    axes.set_xlabel(f"times as fast, on {where} (dotted: equally fast)")
    if bars:
        figure.legend(
            loc="outside upper left",
            title="tlx is so many times as fast",
            alignment="left",
            frameon=False,
            ncols=2,
            fontsize=9,
        )
    figure.savefig(path, format="png")
