"""A head on the features of several stages: the same weights under the same keys, trained and saved as any other."""

from pathlib import Path

import pytest
import torch

import tlx
from tests.config.test_compose import config_of
from tlx.backbones import factories
from tlx.core.errors import RequestError

SMALL = ["backbone=small_cnn", "backbone.input_size=16"]
RUN = [*SMALL, "dataset.train=20", "dataset.test=6", "tracking=none", "strategy=multilayer_probe"]


@pytest.mark.parametrize("words", [SMALL, ["backbone=timm", "backbone.name=resnet10t", "backbone.input_size=32"]])
def test_the_features_are_those_of_the_stages_and_the_keys_stay(words: list[str]) -> None:
    config = config_of("backbone.weights=none", "head=multilayer", *words)
    plain = config_of("backbone.weights=none", *words)
    net, preprocessing = factories.build(config.backbone, config.head, 3, seed=0)
    separate, _ = factories.build(plain.backbone, plain.head, 3, seed=0)
    x = torch.randint(0, 256, (2, 3, preprocessing.input_size, preprocessing.input_size), dtype=torch.uint8)
    found = []
    with torch.no_grad():
        together, each = net[:-1](x), x
        for stage in separate[:-1]:
            each = stage(each)
            found.append(each.flatten(2).mean(2) if each.ndim == 4 else each)
    assert torch.equal(together, torch.cat(found, 1))
    assert net.original_state().keys() == separate.original_state().keys()
    net.load_original(net.original_state())


def test_a_run_measures_and_saves_it(tmp_path: Path) -> None:
    found = tlx.run([*RUN, f"output={tmp_path}", "head.stages=[conv1,fc]"])
    model = tlx.load(found.folder)
    assert model.net[-1][-1].in_features == 32 + 128
    assert found.test_accuracy is not None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["head.stages=[conv3]"],
            r"head.stages: conv3 is no stage before the head \(did you mean 'conv\d'\?\); conv1, ",
        ),
        (["head.append=true"], "head.append=true: the 1000-class layer does not take head.stages"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        tlx.run([*RUN, f"output={tmp_path}", *words])
