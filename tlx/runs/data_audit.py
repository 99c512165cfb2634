"""The audit of a configuration's data: what is read for it, and from where it is known what was read before."""

import dataclasses
import logging

from tlx.analysis.audit import audit
from tlx.analysis.audit_data import AuditData, View, audit_data
from tlx.analysis.fact_reading import pixel_keys
from tlx.analysis.finding import Finding
from tlx.backbones import pretrained_weights
from tlx.config.schema import Backbone, Config, Features
from tlx.core.device import device_of, precision_of, use_threads
from tlx.core.errors import RequestError
from tlx.datasets.folder_layout import Faults
from tlx.datasets.image_decoding import allow
from tlx.datasets.left_out import without_requested
from tlx.datasets.splits import Parts
from tlx.runs.job_audit import folder, memory, overlap
from tlx.runs.output_layout import fact_store, output
from tlx.runs.prepare import found

READ = ("dataset", "backbone", "head", "features", "runtime", "output")  # parts of a configuration
CUTS = ("limit", "per_class", "folds", "fold", "val_fraction", "test_fraction")  # keys of a data set
log = logging.getLogger("tlx")


def audit_of_data(config: Config) -> tuple[AuditData, list[Finding]]:
    """What is found in the data set of a configuration, in the parts that it comes in; nothing is split by seed.

    What the configuration leaves out of train and val is left out here, too.

    Raises:
        RequestError: there is no such data set, or it cannot be read at all.
    """
    allow(config.runtime.max_pixels)
    faults: Faults = []
    parts = found(config, fewest=1, on_error="skip", faults=faults)
    data = _with_features(_of_parts(parts, config), config)
    data = dataclasses.replace(data, faults=tuple(faults), overlap=overlap(config))
    return data, audit(data)


def unread() -> dict[str, str]:
    """The keys that `audit_of_data` does not read, each with the reason."""
    alone = "an audit looks at the images alone, and trains nothing"
    found = {field.name: alone for field in dataclasses.fields(Config) if field.name not in READ}
    found |= {f"features.{field.name}": alone for field in dataclasses.fields(Features) if field.name != "store"}
    found |= {f"dataset.{name}": "an audit looks at all images, in the parts that they come in" for name in CUTS}
    return found | {"dataset.on_error": "an audit lists what cannot be read, and goes on"}


def _with_features(data: AuditData, config: Config) -> AuditData:
    """With pooled features, where the backbone's pretrained weights are at hand; torch is imported for these alone."""
    if not _at_hand(config.backbone):
        return data
    from tlx.analysis.audit_features import with_features
    from tlx.features.disk_cache import RowStore

    use_threads(config.runtime.threads)
    device = device_of(config.runtime.device)
    store = RowStore(output(config) / "features", config.features.store, say=log.warning)
    return with_features(
        data, config.backbone, config.head, store, device, precision_of(config.runtime.precision, device)
    )


def _at_hand(backbone: Backbone) -> bool:
    try:
        return backbone.weights != "none" and pretrained_weights.would_download(backbone) is None
    except RequestError:
        return False


def _of_parts(parts: Parts, config: Config) -> AuditData:
    val, test = parts.val, parts.test
    if test is None and val is not None and config.dataset.splits.val is None:
        val, test = None, val  # as a run takes it
    sets = {"train": parts.train, "val": val, "test": test}
    there = {split: images for split, images in sets.items() if images is not None}
    store = fact_store(config)
    left, notes = without_requested(there, config.dataset, pixel_keys(store))
    data = audit_data(
        left,
        parts.classes,
        store,
        skipped=parts.skipped,
        root=folder(parts.source),
        created=[split for split, images in sets.items() if images is None],
        view=view_of(config.backbone),
        memory=memory(config),
    )
    return dataclasses.replace(data, notes=tuple(notes))


def view_of(backbone: Backbone) -> View | None:
    """How a backbone sees a picture; None where only its weights say so, which are not opened here."""
    size, resize = backbone.input_size, backbone.resize
    if size is None or resize == "auto":
        return None
    if resize in ("squash", "pad"):
        return View(size, None, None)
    crop = size if backbone.crop == "auto" else backbone.crop
    return View(size, size if resize is None else int(resize), None if crop is None else int(crop))
