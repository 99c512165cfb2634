"""Folders as runs leave them, with as many classes and test images as a test needs; no run is needed for them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tlx.core.csv_cells import Table
from tlx.core.statistics import wilson


def run_folder(folder: Path, classes: int, images: int, pictures: int, wrong: float = 0.2) -> Path:
    """A finished run with that many classes and test images, of which the first `pictures` have files of noise."""
    rng = np.random.default_rng([classes, images])
    names = [f"class <{number}> & 'co'" for number in range(classes)]
    labels = np.arange(images) % classes
    predictions = np.where(rng.random(images) < wrong, rng.integers(0, classes, images), labels)
    probabilities = rng.random(images)
    (folder / "images").mkdir(parents=True)
    files = [str(folder / "images" / f"{number}.jpg") for number in range(images)]
    for file in files[:pictures]:
        Image.fromarray(rng.integers(0, 255, (180, 240, 3), dtype=np.uint8)).save(file, quality=95)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, predictions), 1)
    correct = int(np.trace(confusion))
    recall = np.diag(confusion) / np.maximum(confusion.sum(1), 1)
    figures = {
        name: {"precision": 0.5, "recall": float(recall[i]), "f1": 0.5, "images": int(confusion[i].sum())}
        for i, name in enumerate(names)
    }
    summary = {
        "status": "finished", "command": "python -m tlx dataset=<none>", "test_accuracy": correct / images,
        "test_accuracy_interval": wilson(correct, images), "test_loss": 0.5, "classes": names, "per_class": figures,
        "confusion": confusion.tolist(), "images": {"train": 9, "val": 9, "test": images}, "seconds": {"total": 1.0},
    }  # fmt: skip
    bins = [{"probability": 0.5, "accuracy": 0.4, "images": 9}, {"probability": 0.9, "accuracy": 1.0, "images": 9}]
    both = {when: {"ece": 0.1, "bins": bins} for when in ("before", "after")}
    summary["calibration"] = {"temperature": 1.5, "images": 9, **both}
    (folder / "summary.json").write_text(json.dumps(summary))
    segment = {"fact": "brightness", "low": 1, "high": 9, "images": 20, "correct": 2, "rest": 40, "rest_correct": 39}
    analysis = {
        "map": {
            "stage": "head",
            "explained": [0.2, 0.1],
            "points": [[i, i % 7, i % 5] for i in range(min(images, 1500))],
        },
        "neighbours": {
            "stage": "head",
            "images": 9,
            "of": {
                file: [[files[0], names[0], 0.5]] for i, file in enumerate(files[:60]) if labels[i] != predictions[i]
            },
        },
        "attention": dict.fromkeys(files[60:], "data:image/jpeg;base64,none") | {files[0]: "javascript:alert(1)"},
        "segments": {
            "tested": 8,
            "weak": [
                {**segment, "p": 1e-9, "corrected": 1e-8},
                {**segment, "fact": "cluster", "low": 2, "high": 2, "p": 1e-9, "corrected": 1e-8},
            ],
            "examples": {"2": files[:4]},
        },
        "label_errors": [[files[0], names[0], names[1], 0.9]],
        "label_errors_among": 1234,
    }
    (folder / "analysis.json").write_text(json.dumps(analysis))
    rows = [
        {"phase": "probe" if epoch < 4 else "tune", "epoch": epoch, "train_loss": 1 / epoch, "val_loss": 1.1 / epoch,
         "val_accuracy": 1 - 0.5 / epoch} for epoch in range(1, 9)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    finding = {"kind": "near_duplicates", "severity": "warning", "count": 2, "message": "two <alike>", "files": [files]}
    (folder / "audit.json").write_text(json.dumps([finding]))
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as stream:
        table = Table(stream)
        table.row(["sample", "file", "label", "prediction", "probability", "correct"])
        for i in range(images):
            said = (names[labels[i]], names[predictions[i]], f"{probabilities[i]:.6f}")
            table.row([str(i), files[i], *said, str(int(labels[i] == predictions[i]))])
    return folder
