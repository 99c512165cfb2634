"""Images that are mixed for training (mixup, CutMix): what mixes them, and the rows of a phase that come of it."""

import inspect
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from tlx.config.instantiate import component
from tlx.config.schema import Config, Phase
from tlx.config.solver_keys import not_read
from tlx.core.errors import RequestError
from tlx.features.batches import Rows
from tlx.features.feature_cache import FeatureCache
from tlx.features.frozen_forward import Forward
from tlx.features.mixed_rows import Mixed, Mixing
from tlx.training.phase_plan import Plan

KEY = "training.mixing"


def mixing_for(node: Any) -> Mixing:
    """What mixes batches, as a YAML names it by `_target_`; it may hold others.

    Raises:
        RequestError: it names nothing, or something that does not take its values.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise RequestError(f"{KEY}={node}: needs a _target_ (what mixes a batch); take recipe=mixup or recipe=cutmix")
    return cast(Mixing, _made(node, KEY))


def _made(value: Any, key: str) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        found: Any = component({name: _made(one, f"{key}.{name}") for name, one in value.items()}, key)
        takes = inspect.signature(found.func).parameters
        # torchvision fails at a whole number, as in alpha=1.
        floats = [name for name in found.keywords if name in takes and takes[name].annotation is float]
        return found(**{name: float(found.keywords[name]) for name in floats})
    return [_made(one, f"{key}[{i}]") for i, one in enumerate(value)] if isinstance(value, list) else value


def mixes(config: Config, phase: Phase) -> bool:
    """Whether the images of a phase are mixed."""
    return config.training.mixing is not None and "mixing" not in not_read(phase.solver)


def mixes_before(config: Config, phase: Phase, plan: Plan) -> bool:
    """Whether a phase's images are mixed before its frozen stages: then no training row can be cached."""
    return mixes(config, phase) and config.training.mix_at == "pixels" and plan.cut > 0


def rows_of(net: nn.Sequential, plan: Plan, phase: Phase, features: FeatureCache, config: Config) -> Rows:
    """The training rows of a phase as they come out of `net[:plan.cut]`, mixed where that is requested."""
    if not mixes(config, phase):
        return features.rows(net, plan.cut, "train", training=True)
    mixing, seed = mixing_for(config.training.mixing), config.seed
    if not mixes_before(config, phase, plan):
        return Mixed(features.rows(net, plan.cut, "train", training=True), mixing, seed)
    features.say(
        f"features: {plan.rows[plan.cut].stage} input, train, computed anew for each batch ({KEY} mixes the pixels; "
        "training.mix_at=features mixes cached features)"
    )
    frozen = Forward(net[: plan.cut].eval(), features.precision, exact=features.mode == "exact")
    return Mixed(features.rows(net, 0, "train", training=True), mixing, seed, frozen)
