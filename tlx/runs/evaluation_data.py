"""The data that `evaluate` measures a model on: what may be typed beside the model, and which images that are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlx.core.errors import RequestError, nearest

if TYPE_CHECKING:
    from tlx.config.schema import Config
    from tlx.datasets.content_digests import Decoded
    from tlx.datasets.pixel_levels import Range
    from tlx.datasets.splits import Data, Parts
    from tlx.inference.predictor import Model

PARTS = ("train", "val", "test", "all")
OURS = ("dataset", "runtime", "seed", "output")  # what may be said beside the model, which brings all the rest


def span(model: "Model", config: "Config") -> "Range | None":
    """What becomes black and white in images of more than 8 bits: the model's own, or what is given where it has none.

    Raises:
        RequestError: another one is given.
    """
    own, given = model.preprocessing.range, config.dataset.range
    if own is not None and given is not None and own != tuple(given):
        raise RequestError(f"dataset.range={given}: the model brings its own, {list(own)}; leave it out")
    return own if given is None else (given[0], given[1])


def composed(overrides: Sequence[str], config_dir: str | None) -> "Config":
    """The data set and how to compute, of a configuration whose other parts are not looked at."""
    from omegaconf import open_dict

    from tlx.config.compose import compose
    from tlx.config.validation import checked

    for word in overrides:
        key, given, _ = word.partition("=")
        key = key.lstrip("+~")
        if not given:
            raise RequestError(f"{word}: not of the form key=value, as in dataset=image_folder")
        first = key.partition(".")[0].partition("@")[0]
        if first not in OURS:
            raise RequestError(
                f"{word}: the model brings its own; beside it may be said dataset, dataset.<key>, runtime.<key>, seed "
                f"and output{nearest(first, OURS)}"
            )
        if key == "runtime.precision":
            raise RequestError(f"{word}: a model is measured in the number format it was saved with")
    if "dataset" not in typed_keys(overrides):
        raise RequestError("dataset: measured on which data? as in dataset=image_folder dataset.root=~/photos")
    node = compose(overrides, config_dir)
    with open_dict(node):
        node.pop("hydra")
    return checked(node)


def typed_keys(overrides: Sequence[str]) -> set[str]:
    return {word.partition("=")[0].lstrip("+") for word in overrides}


def read(parts: "Parts", config: "Config", seed: int, part: str, decoded: "Decoded") -> "Data":
    """The data set as a run would split it; all of it as it is where `part` is `all` and no choice among them is typed.

    Only images that are measured are decoded; the other splits are known without, unless broken images are left out.

    Raises:
        RequestError: too few for the part that is requested, or what `split` raises.
    """
    import numpy as np

    from tlx.datasets.splits import whole
    from tlx.runs.split_data import split_data

    common = config.dataset
    fewer = (common.limit.train, common.limit.val, common.limit.test, common.per_class, common.folds)
    counts = np.bincount(parts.train.labels, minlength=len(parts.classes))
    least = int(counts.argmin())
    scarce = parts.val is None and parts.test is None and counts[least] < 3
    if part == "all" and (scarce or fewer == (None,) * len(fewer)):
        return whole(parts, common, decoded)
    if scarce:
        raise RequestError(
            f"--part {part}: class '{parts.classes[least]}' has {counts[least]} of the 3 images that a split needs; "
            "--part all measures all images"
        )
    return split_data(parts, config, seed, decoded, PARTS if part == "all" or common.on_error == "skip" else (part,))
