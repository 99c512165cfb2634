"""How well images of none of the classes are separated from test images, and how often those are taken for unknown.

`python -m bench.unknowns --out FOLDER [--ants-bees F --shoes F --leaves F] [--cifar F] [--seeds SEED …]` makes runs and
prints a row of Markdown each: area under the ROC curve by the score and by the maximum logit, the share of the others
that passes where 95 % of the test images do, the share that is predicted as unknown, and the false alarms on the test
set with their 95 % interval.

CIFAR-10 has six known and four unknown classes by chance, another six for each seed, and 64 pixels; some images of each
class are written as files.
"""

import argparse
import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import tlx
from tlx.datasets.synthetic_shapes import draw, generator
from tlx.runs.run_summary import Summary

HEAD = ("known, unknown", "AUROC (95 %)", "maximum logit", "FPR@95", "found", "false alarms (95 %)", "test images")
CIFAR = ["backbone.input_size=64", "backbone.resize=squash", "backbone.crop=null"]
KNOWN, TRAIN, TEST = 6, 200, 100  # classes, and images of each


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.unknowns", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of runs and images that are made")
    for name in ("ants-bees", "shoes", "leaves", "cifar"):
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5), metavar="SEED")
    given = parser.parse_args(argv)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", flush=True)
    for seed in given.seeds:
        for name, words in works(given, seed):
            typed = [*words, f"seed={seed}", f"output={given.out / 'outputs'}", "tracking=none", "dataset.audit=off"]
            print(f"| {' | '.join([f'{name}, seed {seed}', *cells(tlx.run(typed))])} |", flush=True)


def works(given: argparse.Namespace, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Name → what to type, for all data that is at hand."""
    hexagons = given.out / "hexagons"
    hexagons.mkdir(parents=True, exist_ok=True)
    for number in range(200):
        pixels = draw("hexagon", generator(1, "hexagon", "test", number), 96)
        Image.fromarray(pixels).save(hexagons / f"{number}.png")
    stars = ["dataset=new_shapes", "dataset.test=200"]
    yield "stars and pentagons, hexagons", [*stars, f"evaluation.unknown.dataset={hexagons}"]
    yield "stars and pentagons, other shapes", [*stars, "evaluation.unknown.dataset=shapes"]
    if given.ants_bees is not None:
        ants = ["dataset=ants_bees", f"dataset.root={given.ants_bees}"]
        for name, place in (("shoes", given.shoes), ("leaves", given.leaves)):
            if place is not None:
                yield f"ants and bees, {name}", [*ants, f"evaluation.unknown.dataset={place}"]
                if seed == 0:
                    tuned = ["strategy=finetune", f"evaluation.unknown.dataset={place}"]
                    yield f"the same, {name}, strategy=finetune", [*ants, *tuned]
    if given.cifar is not None:
        yield "CIFAR-10, six classes, the other four", [*CIFAR, *classes(given.out, given.cifar, seed)]


def classes(out: Path, cifar: Path, seed: int) -> list[str]:
    """Folders of six classes of CIFAR-10, and of the others, as what is typed."""
    images = out / "cifar"
    if not images.is_dir():
        write(images, cifar)
    order = np.random.default_rng([seed, 6]).permutation(10)
    home = out / f"cifar-{seed}"
    for part in ("train", "test"):
        for place, label in enumerate(order.tolist()):
            link = home / ("known" if place < KNOWN else "others") / part / str(label)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to((images / part / str(label)).absolute(), target_is_directory=True)
    known = ["dataset=image_folder", f"dataset.root={home / 'known'}"]
    return [*known, f"evaluation.unknown.dataset={home / 'others' / 'test'}"]


def write(images: Path, cifar: Path) -> None:
    """The first images of each class, as files."""
    for part, batch, most in (("train", "data_batch_1", TRAIN), ("test", "test_batch", TEST)):
        with (cifar / "cifar-10-batches-py" / batch).open("rb") as file:
            found: dict[bytes, Any] = pickle.load(file, encoding="bytes")
        labels = np.array(found[b"labels"])
        pixels = found[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        for label in range(10):
            folder = images / part / str(label)
            os.makedirs(folder)
            for number in np.flatnonzero(labels == label)[:most].tolist():
                Image.fromarray(pixels[number]).save(folder / f"{number}.png")


def cells(found: Summary) -> list[str]:
    """A run's figures as a row has them."""
    known = {f"{one['split']}_{one['name']}": one for one in found.metrics}
    area, alarms = known["unknown_auroc"], known["test_unknown_false_alarms"]
    return [
        f"{area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})",
        *(f"{known[f'unknown_{name}']['value']:.3f}" for name in ("auroc_max_logit", "fpr95", "recall")),
        f"{alarms['value']:.1%} ({alarms['low']:.1%} to {alarms['high']:.1%})",
        f"{found.images['test']:,}",
    ]


if __name__ == "__main__":
    main()
