"""What `analysis.json` and the calibration say, as a page takes it: neighbours, map, weak segments, and more."""

from collections.abc import Mapping
from typing import Any

from tlx.analysis.weak_segments import CLUSTER
from tlx.core.metric import of_summary
from tlx.reporting import square_charts
from tlx.reporting.figures_in_words import fitted_images
from tlx.reporting.figures_in_words import unknown as of_unknown
from tlx.reporting.score_chart import score_chart
from tlx.runs.page_entries import Entries, named
from tlx.runs.run_files import RunFiles
from tlx.runs.small_pictures import SmallPictures


def neighbours(run: RunFiles, pictures: SmallPictures) -> dict[str, list[dict[str, Any]]]:
    """Of each mistake, by its file, the nearest training images."""
    of = (run.analysis.get("neighbours") or {}).get("of", {})
    return {
        file: [
            {"picture": pictures.of(near), "lines": [label, f"cosine {cosine:.2f}"], **named(near)}
            for near, label, cosine in found
        ]
        for file, found in of.items()
    }


def attention(run: RunFiles) -> dict[str, str]:
    """Of mistakes, by their files, the picture of where the network looked; what is no picture is left out."""
    found = run.analysis.get("attention") or {}
    return {file: str(picture) for file, picture in found.items() if str(picture).startswith("data:image/jpeg;base64,")}


def label_errors(run: RunFiles, pictures: SmallPictures) -> dict[str, Any] | None:
    """Training images whose label is probably wrong, and among how many; None where they were not looked for.

    Earlier versions did not say how many: what they left empty may not have been looked for.
    """
    found, among = run.analysis.get("label_errors"), run.analysis.get("label_errors_among")
    if not found and not among:
        return None
    entries = [
        {
            "picture": pictures.of(file),
            "lines": [f"labelled {label}", f"looks like {other}", f"certainty {certainty:.0%}"],
            **named(file),
        }
        for file, label, other, certainty in found or ()
    ]
    return {"entries": entries, "among": among}


def map_of(run: RunFiles, entries: Entries) -> dict[str, Any] | None:
    """The map of the test images by their features; None where there is none."""
    found = run.analysis.get("map")
    if not found:
        return None
    numbers = {name: number for number, name in enumerate(run.classes)}
    rows = [row for row, _, _ in found["points"]]
    points = [(numbers[entries.labels[row]], x, y) for row, x, y in found["points"]]
    titles = [
        f"{named(entries.files[row])['name']}: {entries.predictions[row]}, is {entries.labels[row]}" for row in rows
    ]
    chart = square_charts.point_map(points, [bool(entries.correct[row]) for row in rows], titles, run.classes)
    shares = found["explained"]
    return {**chart, "stage": found["stage"], "images": len(rows), "explained": None if shares is None else sum(shares)}


def segments(run: RunFiles, pictures: SmallPictures) -> dict[str, Any] | None:
    """The weak segments as a table, and images of those that are clusters; None where they were not looked for."""
    found = run.analysis.get("segments")
    if not found:
        return None
    rows = [
        [
            [segment(one)],
            [f"{one['images']:,}"],
            [f"{one['correct'] / one['images']:.1%}"],
            [f"{one['rest_correct'] / one['rest']:.1%}"],
            [f"{one['corrected']:.2g}"],
        ]
        for one in found["weak"]
    ]
    examples = [
        {
            "name": f"cluster {int(number) + 1}",
            "entries": [{"picture": pictures.of(file), "lines": [], **named(file)} for file in files],
        }
        for number, files in found.get("examples", {}).items()
    ]
    return {"tested": found["tested"], "rows": rows, "examples": examples}


def segment(one: Mapping[str, Any]) -> str:
    """A weak segment, as a person reads it."""
    if one["fact"] == CLUSTER:
        return f"cluster {int(one['low']) + 1}"
    return f"{one['fact']} {one['low']:.3g} to {one['high']:.3g}"


def unknown(run: RunFiles, pictures: SmallPictures) -> dict[str, Any] | None:
    """How far test images, and images of none of the classes, are from the training images; None where there are no
    scores."""
    found = run.analysis.get("unknown")
    if not found:
        return None
    threshold = (run.summary.get("unknown") or {}).get("threshold")
    kinds = {"test": "val", "unknown": "train"}
    chart = score_chart({kinds[split]: scores for split, scores in found["scores"].items()}, threshold)

    def shown(split: str) -> list[dict[str, Any]]:
        return [
            {
                "picture": pictures.of(file),
                "lines": [
                    f"distance {score:.2f}",
                    *(["unknown"] if threshold is not None and score > threshold else []),
                ],
                **named(file),
            }
            for file, score in found["images"].get(split, ())
        ]

    lines = [f"{name}: {words}." for name, words in of_unknown(run.summary)]
    return {"lines": lines, "chart": chart, "entries": shown("test"), "others": shown("unknown")}


def calibration(run: RunFiles) -> dict[str, Any] | None:
    """The reliability diagram and what it says in words; None where probabilities were not looked at."""
    found = run.summary.get("calibration") or {}
    if "after" not in found or "before" not in found:
        return None
    floor = next((one for one in of_summary(run.summary) if one.key == "test_ece_floor"), None)
    words = f"The temperature is {found['temperature']:.2f}, fitted to {fitted_images(found)}. "
    words += f"Calibration error {found['before']['ece']:.1%} before it, {found['after']['ece']:.1%} after it"
    if floor is not None:
        words += f"; a calibrated model would show {floor.value:.1%} with as many images"
    rows = [
        [[f"{one['probability']:.1%}"], [f"{one['accuracy']:.1%}"], [f"{one['images']:,}"]]
        for one in found["after"]["bins"]
    ]
    return {"words": f"{words}.", "rows": rows, "chart": square_charts.reliability(found, len(run.classes))}
