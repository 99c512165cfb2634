"""`model/README.md`: the model card, with metadata as the Hugging Face Hub reads it, made from the files of a run."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tlx.core.atomic_files import atomic
from tlx.core.errors import shown, unicode
from tlx.core.metric import MetricValue, of_summary
from tlx.core.statistics import visible_in_words, wilson
from tlx.core.trees import flat
from tlx.reporting.run_display import counted
from tlx.runs import run_files
from tlx.runs.page_found import segment
from tlx.runs.report_page import data_set, result, title
from tlx.runs.run_files import RunFiles

FILE = "README.md"
# What the Hub calls a figure of ours; others have no name there, and are in the card's text.
HUB = {"accuracy": "accuracy", "macro_f1": "f1"}
CLASSES = 100  # that are listed
TASK = {"type": "image-classification", "name": "Image Classification"}


def write(folder: Path) -> Path | None:
    """Writes the card into the saved model of the run in `folder`; None where there is no model.

    Raises:
        RequestError: a file of the run cannot be read, or the card cannot be written.
    """
    run = run_files.read(folder)
    if not run.model:
        return None
    target = folder / "model" / FILE
    with atomic(target) as path:
        path.write_text(unicode(card(run)), encoding="utf-8", newline="")
    return target


def card(run: RunFiles) -> str:
    """The card: YAML between two lines of dashes, then Markdown."""
    front = yaml.safe_dump(metadata(run), allow_unicode=True, sort_keys=False, width=1000)
    text = [part for name, lines in _parts(run) if lines for part in (f"## {name}", "\n".join(lines))]
    return "\n\n".join([f"---\n{front}---", f"# {_plain(title(run))}", _plain(result(run)), *text]) + "\n"


def metadata(run: RunFiles) -> dict[str, Any]:
    """What the Hub reads. The licence of a trained model is its owner's to choose: it is `unknown`."""
    data, base = data_set(run), _base(run)
    figures = [
        {"type": HUB[one.name], "name": one.name.replace("_", " "), "value": round(one.value, 4)}
        for one in of_summary(run.summary)
        if one.split == "test" and one.name in HUB
    ]
    measured = {"task": TASK, "dataset": {"name": data, "type": data, "split": "test"}, "metrics": figures}
    found = {
        "license": "unknown",
        "library_name": "tlx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "transfer-learning", str(_of(run.model, "backbone.name") or "")],
        "datasets": [data] if data else [],
        "metrics": [one["type"] for one in figures],
        "base_model": base,
        "model-index": [{"name": title(run), "results": [measured]}] if figures and data else [],
    }
    return {name: value for name, value in found.items() if value}


def _base(run: RunFiles) -> str:
    """The repository on the Hub that the initial weights are from; "" where the run does not say one."""
    address = re.match(r"https://huggingface\.co/([\w.-]+/[\w.-]+)/", str(_of(run.config, "backbone.url") or ""))
    return address[1] if address else ""


def _parts(run: RunFiles) -> Iterator[tuple[str, list[str]]]:
    yield "Intended use", list(_use(run))
    yield "Figures", list(_figures(run))
    yield "Limits", [f"- {line}" for line in _limits(run)]
    yield "Data", [f"- {name}: {_plain(value)}" for name, value in _data(run) if value]
    yield "Licences", [f"- {name}: {_plain(value)}" for name, value in _licences(run)]
    yield "How to use it", list(_usage(run))
    command = str(run.summary.get("command") or "")
    yield "How to train it again", ["```sh", shown(command), "```"] if command else []
    versions = run.model.get("versions") or {}
    yield "Made with", [", ".join(f"{package} {number}" for package, number in versions.items())]


def _use(run: RunFiles) -> Iterator[str]:
    names = [_plain(name) for name in run.classes]
    more = f", … ({len(names) - CLASSES} more, in `model.json`)" if len(names) > CLASSES else ""
    yield f"It says which of {len(names)} classes an image shows: {', '.join(names[:CLASSES])}{more}."
    if _of(run.model, "unknown.threshold") is None:
        yield "It has no answer for images of anything else: to these, too, it gives one of the classes."


def _figures(run: RunFiles) -> Iterator[str]:
    figures = [one for one in of_summary(run.summary) if one.split == "test"]
    if figures:
        images = (run.summary.get("images") or {}).get("test", 0)
        yield f"Of {images:,} test images, which chose nothing:"
        yield from ("", "| figure | value | 95 % interval |", "|---|---|---|")
        yield from (f"| {one.name.replace('_', ' ')} | {' | '.join(_value(one, images))} |" for one in figures)
    found = {name: known for name, known in (run.summary.get("per_class") or {}).items() if known["images"]}
    if found:
        yield from ("", "| class | images | precision | recall | F1 | 95 % interval of recall |")
        yield "|---|---|---|---|---|---|"
    for name, known in list(found.items())[:CLASSES]:
        low, high = wilson(round((known["recall"] or 0.0) * known["images"]), int(known["images"]))
        shares = " | ".join("–" if known[key] is None else f"{known[key]:.1%}" for key in ("precision", "recall", "f1"))
        yield f"| {_plain(name)} | {known['images']:,.0f} | {shares} | {low:.1%} to {high:.1%} |"
    if len(found) > CLASSES:
        yield f"\n{len(found) - CLASSES} more classes are in `summary.json` of the run."


def _value(one: MetricValue, images: int) -> tuple[str, str]:
    value, _, interval = one.shown(images).partition("  (")
    return value, interval.removeprefix("95 % interval ").partition(",")[0] or "–"


def _limits(run: RunFiles) -> Iterator[str]:
    accuracy, images = run.summary.get("test_accuracy"), (run.summary.get("images") or {}).get("test")
    if accuracy is not None and images:
        yield f"{visible_in_words(accuracy * images, images)}."
    if overlap := _of(run.config, "dataset.pretraining_overlap"):
        yield f"Of these images the initial weights have learned from: {_plain(overlap)}."
    segments = run.analysis.get("segments") or {}
    for one in segments.get("weak", ()):
        here, rest = one["correct"] / one["images"], one["rest_correct"] / one["rest"]
        yield f"weaker on {segment(one)}: {here:.1%} of {one['images']:,} are correct, of the others {rest:.1%}"
    if segments and not segments.get("weak"):
        yield f"none of {segments['tested']} groups of images, as dark or small ones, is significantly weaker"
    if line := run.summary.get("not_converged"):
        yield _plain(line)
    if (threshold := _of(run.model, "unknown.threshold")) is not None:
        yield f"an image whose distance to the training images is above {threshold:.3g} is predicted as unknown"


def _data(run: RunFiles) -> Iterator[tuple[str, str]]:
    summary = run.summary
    yield "name", data_set(run)
    yield "images", counted(summary["images"], summary.get("splits") or {}) if summary.get("images") else ""
    yield "left out", f"{len(summary['skipped'])} of the files" if summary.get("skipped") else ""
    if run.audit is None:
        yield "audit", "not audited"
        return
    counts = [f"{str(one['kind']).replace('_', ' ')} ({one.get('count', 0):,}, {one['severity']})" for one in run.audit]
    yield "audit", ", ".join(counts) or "nothing found"


def _licences(run: RunFiles) -> Iterator[tuple[str, str]]:
    weights, own = str(_of(run.config, "backbone.weights") or "unknown"), _of(run.config, "backbone.licence")
    if weights == "imagenet":
        said = f"{own} (as tlx's configuration of {_of(run.config, 'backbone.name')} says)" if own else "unknown"
    else:
        said = "none: they were drawn" if weights == "none" else "unknown (a file or a run of the user)"
    yield "initial weights", f"{weights}; licence: {said}"
    data = _of(run.config, "dataset.reader.archive.licence")
    yield "data", f"{data} (as tlx's configuration of the data set says)" if data else "unknown"
    yield "this model", "unknown: whoever publishes it chooses one that these allow"


def _usage(run: RunFiles) -> Sequence[str]:
    seen = run.model.get("preprocessing") or {}
    rule = ", ".join(f"{name} {value}" for name, value in seen.items() if value is not None)
    return [
        "```python",
        "import tlx",
        "",
        'for found in tlx.load("FOLDER").predict(["photo.jpg"]):  # the folder that this file is in',
        "    print(found.prediction, found.probability)",
        "```",
        "",
        "`python -m tlx export FOLDER --format onnx` writes one ONNX file that takes the pixels of an image of any"
        " size, uint8 RGB `[H, W, 3]`, as `image`, and gives `probabilities`.",
        "",
        f"Preprocessing, which both do themselves: {rule}. The logits are divided by the temperature "
        f"{float(run.model.get('temperature') or 1.0):.3g}.",
    ]


def _of(tree: Mapping[str, Any], key: str) -> Any:
    """A value by its dotted key; None where there is none."""
    return dict(flat(tree)).get(key)


def _plain(text: Any) -> str:
    """A text as Markdown shows it, in a line, also in a table."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", " ".join(shown(str(text)).split()))
