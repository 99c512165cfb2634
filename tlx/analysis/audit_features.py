"""Pooled features of all images for the checks of an audit, by the pretrained network of the configuration.

They go through the cache of features: a second audit reads them, and computes none.
"""

import dataclasses
import json
import logging

import numpy as np
import torch
from numpy.typing import NDArray

from tlx.analysis.audit_data import AuditData
from tlx.backbones import pretrained_weights
from tlx.backbones.factories import build
from tlx.config.schema import Backbone, Head
from tlx.core.errors import RequestError, reason
from tlx.datasets.images import Images
from tlx.features.batches import Pixels
from tlx.features.disk_cache import RowStore
from tlx.features.feature_cache import FeatureCache
from tlx.features.pooled_rows import pooled

SIZE = 64  # pixels of a side: enough to tell pictures apart, and fast

log = logging.getLogger("tlx")


def with_features(
    data: AuditData, backbone: Backbone, head: Head, store: RowStore, device: torch.device, precision: str
) -> AuditData:
    """The data with the features of its images; as it is where no pretrained weights are at hand. Nothing is fetched.

    The pictures are squashed to 64 pixels, whatever a run does: the whole picture counts.
    """
    if backbone.weights == "none" or not len(data):
        return data
    small = dataclasses.replace(backbone, input_size=SIZE, resize="squash", crop=None)
    try:
        pretrained_weights.locate(small, offline=True)
        net, preprocessing = build(small, head, max(len(data.classes), 2), seed=0, offline=True)
        cut = [name for name, _ in net.named_children()].index(small.classifier)
    except (RequestError, RuntimeError, ValueError) as error:
        # Weights that are not here, or a network that takes one size only: the other checks do without.
        log.info("the audit has no features: %s", reason(error))
        return data
    sets, rows = dict[str, Images](), dict[str, NDArray[np.int64]]()
    for split in data.sets:
        rows[split] = data.rows(split)
        if len(rows[split]):
            sets[split] = data.sets[split].subset(data.places[row] for row in rows[split].tolist())
    cache = FeatureCache(
        {
            name: Pixels(images, preprocessing, device, spec=json.dumps(preprocessing.to_dict()))
            for name, images in sets.items()
        },
        None,
        device,
        precision,
        cuts=[cut],
        store=store,
        about={"backbone": backbone.name, "data": "audit"},
        architecture=json.dumps(dataclasses.asdict(dataclasses.replace(small, weights="none")), default=str),
        say=log.info,
    )
    made = {
        name: pooled(cache.rows(net.to(device), cut, name), torch.arange(len(images))) for name, images in sets.items()
    }
    features = np.zeros((len(data), next(iter(made.values())).shape[1]), np.float32)
    for name, found in made.items():
        features[rows[name]] = found
    return dataclasses.replace(data, features=features)
