"""`report.html` of a run: one page that explains it, made from the files of its folder."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tlx.core.atomic_files import atomic
from tlx.core.errors import said, shown, unicode
from tlx.core.metric import of_summary
from tlx.core.statistics import wilson
from tlx.reporting import html_pages, line_chart
from tlx.reporting.rate_plot import rate_chart
from tlx.reporting.run_display import counted, plan_rows, plan_share
from tlx.reporting.text_table import duration
from tlx.runs import page_found, run_files
from tlx.runs.page_confusion import confusion
from tlx.runs.page_entries import Entries, named
from tlx.runs.page_images import images_of
from tlx.runs.run_files import RunFiles
from tlx.runs.small_pictures import SIDE, Read, SmallPictures

FILE = "report.html"
GALLERY = 24  # images of a gallery
CLASSES = 30  # classes of the table that are shown at once
EXAMPLES = 6  # images of a finding of the audit

log = logging.getLogger("tlx")


@contextmanager
def spared(name: str) -> Iterator[None]:
    """That a file of the page, or a part of it, cannot be written is one warning, and no reason for a run to fail."""
    try:
        yield
    except Exception as error:  # whatever it is: the run is through, and its other files are whole
        log.warning("%s was not written: %s", name, said(error))


def write(folder: Path, read: Read | None = None) -> Path:
    """Writes the page into the run's folder. `read`: what gives the images; None: files, or the run's data set.

    Raises:
        RequestError: a file of the run cannot be read, or the page cannot be written.
    """
    run = run_files.read(folder)
    text = unicode(page(run, read or images_of(run)))
    with atomic(folder / FILE) as path:
        path.write_text(text, encoding="utf-8")
    return folder / FILE


def page(run: RunFiles, read: Read) -> str:
    """The page, self-contained."""
    pictures = SmallPictures(read, run.summary.get("range"))
    entries = None if run.predicted is None else Entries(run.predicted, pictures)
    # In the order in which they take pictures: a page has so many.
    galleries = [] if entries is None else list(_galleries(entries, page_found.neighbours(run, pictures)))
    errors = page_found.label_errors(run, pictures)
    segments = page_found.segments(run, pictures)
    unknown = page_found.unknown(run, pictures)
    matrix = None if entries is None else confusion(entries, run.classes)
    audit = None if run.audit is None else [_finding(finding, pictures) for finding in run.audit]
    return html_pages.page(
        "run.html",
        title=title(run),
        result=result(run),
        notes=[str(note) for note in (run.summary.get("not_converged"), *(run.summary.get("notes") or ())) if note],
        metrics=[_metric(metric, run) for metric in of_summary(run.summary)],
        facts=list(_facts(run)),
        phases=[_phase(phase) for phase in run.plan],
        audit=audit,
        charts=line_chart.curves(run.rows, run.choose_by),
        rates=[rate_chart(name, found) for name, found in (run.summary.get("learning_rates") or {}).items()],
        confusion=matrix,
        per_class=_per_class(run),
        shown=CLASSES,
        galleries=galleries,
        attention=page_found.attention(run),
        stage=(run.analysis.get("neighbours") or {}).get("stage", ""),
        label_errors=errors,
        map=None if entries is None else page_found.map_of(run, entries),
        segments=segments,
        calibration=page_found.calibration(run),
        unknown=unknown,
        seconds=_seconds(run.summary.get("seconds") or {}),
        environment=list(_environment(run)),
        command=shown(str(run.summary.get("command") or "")),
        pictures=pictures.made(),
        pixels=SIDE,
        script=html_pages.script("gallery.js"),
    )


def title(run: RunFiles) -> str:
    names = (_name(run, "backbone"), data_set(run))
    return " on ".join(name for name in names if name) or run.folder.name


def _name(run: RunFiles, group: str) -> str:
    if chosen := (run.summary.get("choices") or {}).get(group):
        return str(chosen)
    found = run.config.get(group)
    return str(found.get("name") or "") if isinstance(found, Mapping) else ""


def data_set(run: RunFiles) -> str:
    found = run.config.get("dataset")
    reader = found.get("reader") if isinstance(found, Mapping) else None
    if not isinstance(reader, Mapping):
        return ""
    name, root = str(reader.get("name") or ""), str(reader.get("root") or "")
    return Path(root).name if name in ("", "image_folder") and root else name


def result(run: RunFiles) -> str:
    """The result in one sentence, with its interval."""
    summary = run.summary
    accuracy, interval = summary.get("test_accuracy"), summary.get("test_accuracy_interval")
    if accuracy is None or interval is None:
        why = f": {summary['error']}" if summary.get("error") else ""
        return f"The run is {summary.get('status', 'not finished')}; its test accuracy was not measured{why}."
    images = (summary.get("images") or {}).get("test")
    of = f"{images:,} test images" if images else "test images"
    low, high = interval
    sentence = f"{accuracy:.1%} of {of} are classified correctly (95 % interval {low:.1%} to {high:.1%})"
    counts = [int(figures.get("images", 0)) for figures in (summary.get("per_class") or {}).values()]
    if sum(counts):
        sentence += f"; the most frequent class alone would give {max(counts) / sum(counts):.1%}"
    ended = "" if summary.get("status") == "finished" else f" The run is {summary.get('status')}."
    return f"{sentence}.{ended}"


def _metric(metric: Any, run: RunFiles) -> list[list[str]]:
    value, _, interval = metric.shown((run.summary.get("images") or {}).get(metric.split, 0)).partition("  (")
    inside = interval.removeprefix("95 % interval ").partition(",")[0].removesuffix(")")
    return [[metric.name.replace("_", " ")], [metric.split], [value], [inside or "–"]]


def _facts(run: RunFiles) -> Iterator[tuple[str, str]]:
    summary = run.summary
    if images := summary.get("images"):
        yield "images", counted(images, summary.get("splits") or {})
    if run.classes:
        more = f", … ({len(run.classes) - 10} more)" if len(run.classes) > 10 else ""
        yield "classes", f"{len(run.classes)}: {', '.join(run.classes[:10])}{more}"
    if summary.get("best_epoch"):
        rule = summary.get("choose_by") or run.choose_by
        yield "model", f"epoch {summary['best_epoch']} of {summary.get('epochs')}, the best by {rule}"
    if summary.get("accuracy_before_training") is not None:
        yield "untrained head", f"test accuracy {summary['accuracy_before_training']:.1%}"
    if skipped := summary.get("skipped"):
        yield "skipped", f"{len(skipped)} files that cannot be read, listed in summary.json"
    if summary.get("source"):
        yield "source task", str(summary["source"])


def _phase(phase: Mapping[str, Any]) -> dict[str, Any]:
    head, *rows = plan_rows(phase)
    return {"name": phase["phase"], "share": plan_share(phase), "head": head, "rows": [[[c] for c in r] for r in rows]}


def _finding(finding: Mapping[str, Any], pictures: SmallPictures) -> dict[str, Any]:
    files = [file for group in finding.get("files", ()) for file in group][:EXAMPLES]
    return {
        "name": str(finding["kind"]).replace("_", " "),
        "severity": finding["severity"],
        "message": finding["message"],
        "remedy": finding.get("remedy", ""),
        "entries": [{"picture": pictures.of(file), "lines": [], **named(file)} for file in files],
        "count": finding.get("count", 0),
    }


def _per_class(run: RunFiles) -> list[list[list[str]]]:
    """A row a class, the lowest F1 first; classes without a test image last."""
    found = run.summary.get("per_class") or {}
    rows = []
    for name, figures in sorted(found.items(), key=lambda item: (not item[1]["images"], item[1]["f1"] or 0.0)):
        images = int(figures["images"])
        if not images:
            rows.append([[name], ["0"], ["–"], ["–"], ["–"], ["–"]])
            continue
        shares = ["–" if figures[key] is None else f"{figures[key]:.1%}" for key in ("precision", "recall", "f1")]
        low, high = wilson(round((figures["recall"] or 0.0) * images), images)
        rows.append([[name], [f"{images:,}"], *([share] for share in shares), [f"{low:.1%} to {high:.1%}"]])
    return rows


def _galleries(entries: Entries, near: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key, name, rows, order in (
        ("mistakes", "Mistakes", entries.mistakes, "the most confident first"),
        ("hits", "Least confident hits", entries.hits, "correct, the least confident first"),
    ):
        some = f"{GALLERY} of {len(rows):,}" if len(rows) > GALLERY else f"{len(rows)}"
        words = f"{some} images, {order}" if rows else "none"
        shown = [{**entries.entry(row), "near": near.get(entries.files[row], ())} for row in rows[:GALLERY]]
        yield {"id": key, "name": name, "words": words, "entries": shown, "near": any(one["near"] for one in shown)}


def _seconds(seconds: Mapping[str, float]) -> dict[str, Any]:
    total = seconds.get("total", 0.0)
    parts = [(part, spent) for part, spent in seconds.items() if part != "total" and spent >= 0.0005]
    most = max((spent for _, spent in parts), default=1.0)
    return {
        "total": duration(total),
        "parts": [(part, duration(spent), round(100 * spent / most, 1)) for part, spent in parts],
    }


def _environment(run: RunFiles) -> Iterator[tuple[str, str]]:
    summary = run.summary
    yield "device", f"{summary.get('device', '')}, {summary.get('precision', '')}".strip(", ")
    if (rate := summary.get("images_per_second")) is not None:
        yield "training", f"{rate:,.0f} images/s"
    versions = run.model.get("versions")
    if isinstance(versions, Mapping):
        yield "versions", ", ".join(f"{package} {number}" for package, number in versions.items())
    if "seed" in run.config:
        yield "seed", str(run.config["seed"])
    if summary.get("identity"):
        yield "identity", str(summary["identity"])
    yield "folder", str(run.folder.absolute())
