"""Values of Python are what is typed on the command line."""

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tlx
from tlx.config.compose import compose
from tlx.config.multirun import jobs
from tlx.config.python_overrides import as_overrides
from tlx.core.errors import RequestError


def test_lists_mappings_and_keywords_are_the_same_run() -> None:
    typed = ["strategy=finetune", "training.epochs=5", "training.lr=0.001"]
    assert as_overrides(typed, {}) == typed
    assert as_overrides({"strategy": "finetune", "training.epochs": 5, "training.lr": 1e-3}, {}) == typed
    assert as_overrides((), {"strategy": "finetune", "training": {"epochs": 5, "lr": 1e-3}}) == typed
    assert as_overrides(typed[:1], {"training": {"epochs": 5, "lr": 1e-3}}) == typed


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 3),
        ("training.lr", 3e-5),
        ("training.clip_norm", None),
        ("training.lr", np.float32(0.5)),
        ("dataset.limit.train", np.int64(7)),
        ("runtime.offline", True),
        ("backbone.mean", [0.5, 0.25, 0.1]),
        ("backbone.mean", (0.5, 0.25, 0.1)),
        ("dataset.root", Path("/my photos (2)/a=b")),
        ("dataset.root", "/my photos (2)/a, b"),
        ("dataset.root", "2024"),
    ],
)
def test_a_value_arrives_as_it_is(key: str, value: Any) -> None:
    from omegaconf import OmegaConf

    node = compose(as_overrides({"dataset": "image_folder", key: value}, {}))
    found = OmegaConf.select(node, key)
    if isinstance(value, list | tuple):
        assert [*found] == [*value]
    else:
        assert found == (str(value) if isinstance(value, Path) else value)


def test_a_list_is_several_choices_of_a_sweep() -> None:
    words = as_overrides(
        {"strategy": ["finetune", "full"], "training.lr": [1e-3, None], "head": "linear,mlp"}, {}, sweep=True
    )
    assert words == ["strategy=finetune,full", "training.lr=0.001,null", "head=linear,mlp"]
    roots = ["/photos, old", "/photos (2)", "/plain"]
    found = jobs(as_overrides({"dataset": "image_folder", "dataset.root": roots}, {}, sweep=True))
    assert [compose(job).dataset.root for job in found] == roots
    several = as_overrides({"backbone.mean": [[0.5, 0.5, 0.5], [0.1, 0.2, 0.3]]}, {}, sweep=True)
    assert [[*compose(job).backbone.mean] for job in jobs(several)] == [[0.5, 0.5, 0.5], [0.1, 0.2, 0.3]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("seed=1", 'seed=1: overrides are a list, as in ["seed=1"]'),
        ([("seed", 1)], "an override is text"),
        ({"training.lr": object()}, "training.lr: object is no value of a configuration"),
        ({"training.lr": []}, "training.lr: an empty list"),
    ],
)
def test_what_is_no_override_is_one_line(given: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message.replace("[", r"\[")):
        as_overrides(given, {}, sweep=True)


@pytest.mark.parametrize("full", ["", "1"])
def test_a_wrong_request_from_python_has_its_causes_only_on_request(full: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", full)
    for call in (tlx.run, tlx.sweep):
        with pytest.raises(RequestError, match="dataset=image_foldr: no such dataset") as raised:
            call(dataset="image_foldr")
        assert ("direct cause" in "".join(traceback.format_exception(raised.value))) == (full == "1")
