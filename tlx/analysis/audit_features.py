"""Pooled features of all images for the checks of an audit, by the pretrained network of the configuration.

They go through the cache of features: a second audit reads them, and computes none.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tlx.analysis.audit_data import AuditData, Finer
from tlx.backbones import pretrained_weights
from tlx.backbones.factories import build
from tlx.config.schema import Backbone, Head
from tlx.core.errors import RequestError, reason
from tlx.core.large_arrays import SMALL, release, zeros
from tlx.datasets.images import Labels
from tlx.datasets.preprocessing import Preprocessing
from tlx.features.batches import Pixels
from tlx.features.disk_cache import RowStore
from tlx.features.feature_cache import FeatureCache
from tlx.features.pooled_rows import BATCH, pooled_batches

SIZE = 64  # pixels of a side: enough to tell pictures apart, and fast
RELEASED = 16 * BATCH  # images after which what is written of their features need not stay in memory

log = logging.getLogger("tlx")


@dataclass(frozen=True)
class Made:
    """How features of images are made.

    Attributes:
        head, store, device, precision: as a run has them.
    """

    head: Head
    store: RowStore
    device: torch.device
    precision: str


def with_features(
    data: AuditData, backbone: Backbone, head: Head, store: RowStore, device: torch.device, precision: str
) -> AuditData:
    """The data with the features of its images; as it is where no pretrained weights are at hand. Nothing is fetched.

    The pictures are squashed, whatever a run does: the whole picture counts. All are made at 64 pixels, and those that
    a check requests at the size that the backbone has.
    """
    if backbone.weights == "none" or not len(data):
        return data
    made = Made(head, store, device, precision)
    full = dataclasses.replace(backbone, resize="squash", crop=None)
    small = dataclasses.replace(full, input_size=SIZE)
    try:
        pretrained_weights.locate(small, offline=True)
        net, preprocessing = _network(data, small, made)
    except (RequestError, RuntimeError, ValueError) as error:
        # Weights that are not here, or a network that takes one size only: the other checks do without.
        log.info("the audit has no features: %s", reason(error))
        return data

    def larger(rows: Labels) -> NDArray[np.float32]:
        return _features(data, rows, full, *_network(data, full, made), made)

    side = backbone.input_size
    finer = Finer(str(side), larger) if side is None or side > SIZE else None
    features = _features(data, np.arange(len(data)), small, net, preprocessing, made)
    return dataclasses.replace(data, features=features, finer=finer)


def _network(data: AuditData, backbone: Backbone, made: Made) -> tuple[torch.nn.Sequential, Preprocessing]:
    return build(backbone, made.head, max(len(data.classes), 2), seed=0, offline=True)


def _features(
    data: AuditData,
    rows: Labels,
    backbone: Backbone,
    net: torch.nn.Sequential,
    preprocessing: Preprocessing,
    made: Made,
) -> NDArray[np.float32]:
    """Of rows of the data, float32 [len(rows), D]."""
    cut = [name for name, _ in net.named_children()].index(backbone.classifier)
    places = {split: np.flatnonzero(data.splits[rows] == split) for split in data.sets}
    sets = {
        split: data.sets[split].subset(data.places[row] for row in rows[found].tolist())
        for split, found in places.items()
        if len(found)
    }
    cache = FeatureCache(
        {
            name: Pixels(images, preprocessing, made.device, spec=json.dumps(preprocessing.to_dict()))
            for name, images in sets.items()
        },
        None,
        made.device,
        made.precision,
        budget=SMALL,  # more of them are read from files, or computed as they are requested
        cuts=[cut],
        store=made.store,
        about={"backbone": backbone.name, "data": "audit"},
        architecture=json.dumps(dataclasses.asdict(dataclasses.replace(backbone, weights="none")), default=str),
        say=log.info,
    )
    net = net.to(made.device)
    features: NDArray[np.float32] | None = None
    for name, images in sets.items():
        done = 0
        for some in pooled_batches(cache.rows(net, cut, name), torch.arange(len(images))):
            if features is None:
                features = zeros((len(rows), some.shape[1]), np.float32, data.memory)
            features[places[name][done : done + len(some)]] = some
            done += len(some)
            if done % RELEASED == 0:
                release(features)
    assert features is not None
    release(features)
    return features
