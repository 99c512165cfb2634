"""Hydra's own keys have an effect, or are refused by name: none is taken in silence."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tlx.config.compose import compose
from tlx.config.multirun import jobs
from tlx.core.errors import RequestError
from tlx.core.trees import flat
from tlx.sweeps.sweep_plan import plan

READ = {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.launcher._target_"}
READ |= {"hydra.sweeper.max_batch_size", "hydra.job.name"}
READ |= {f"hydra.job.config.override_dirname.{name}" for name in ("kv_sep", "item_sep", "exclude_keys")}


def test_each_of_hydras_keys_and_groups_is_read_or_refused_by_name() -> None:
    tree: Any = OmegaConf.to_container(compose([]).hydra, resolve=False)
    keys = {f"hydra.{key}" for key, _ in flat(tree) if not key.startswith(("runtime.choices", "overrides"))}
    keys |= {"hydra.overrides.task", "hydra.callbacks.mine", "hydra.job.env_set.A", "hydra"}
    keys |= {name for name in tree["runtime"]["choices"] if name.startswith("hydra/")} - {"hydra/launcher"}
    assert keys >= READ
    for key in sorted(keys - READ):
        for override in (f"{key}=other", f"++{key}=other"):
            for ask in (compose, jobs):
                with pytest.raises(RequestError, match="=other: ") as raised:
                    ask([override])
                assert str(raised.value).startswith(f"{override}: ")
                assert "no such" not in str(raised.value)


@pytest.mark.parametrize("key", ["hydra.nope", "hydra.job.nope", "hydra.run.nope", "hydra.sweeper.nope"])
def test_a_key_that_hydra_has_not_got_cannot_be_added(key: str) -> None:
    for override in (f"{key}=1", f"+{key}=1", f"++{key}=1"):
        with pytest.raises(RequestError, match="=1: no such key") as raised:
            compose([override])
        assert str(raised.value).startswith(f"{override}: ")


@pytest.mark.parametrize("override", ["hydra.job.chdir=false", "hydra.output_subdir=null", "hydra/job_logging=none"])
def test_what_is_so_in_any_case_may_be_typed(override: str) -> None:
    compose([override])


def test_a_yaml_that_sets_one_without_an_effect_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    for text, key in (
        ("hydra: {job: {chdir: true}}", "hydra.job.chdir"),
        ("hydra: {callbacks: {mine: {_target_: mine.Callback}}}", "hydra.callbacks"),
        ("hydra: {job_logging: {disable_existing_loggers: true}}", "hydra.job_logging"),
    ):
        (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n# Mine\n{text}\n")
        with pytest.raises(RequestError, match=rf"^{key}: is set by a YAML file, but has no effect: "):
            compose(["experiment=mine"], str(tmp_path))


def test_the_number_of_a_job_may_name_its_folder() -> None:
    def folders(subdir: str, *words: str) -> list[str]:
        return [job.folder for job in plan([f"hydra.sweep.subdir={subdir}", "seed=3,4", *words], None)[0]]

    assert folders("${hydra.job.num}") == ["0", "1"]
    assert folders("n${hydra.job.num}-${seed}") == ["n0-3", "n1-4"]
    assert folders("mine") == ["0-mine", "1-mine"]
    with pytest.raises(RequestError, match=r"hydra.sweep.subdir: \$\{hydra.job.num\} changes when a sweep"):
        folders("${hydra.job.num}", "sweep.name=mine")
    with pytest.raises(RequestError, match=r"hydra.sweep.subdir: cannot be filled in: .*hydra\.job\.id"):
        folders("${hydra.job.id}")


@pytest.mark.parametrize(
    ("override", "written"),
    [
        ("+experiment=shapes_transfer", "experiment=shapes_transfer"),
        ("++experiment=shapes_transfer", "experiment=shapes_transfer"),
        ("+backbone=small_cnn", "backbone=small_cnn"),
        ("+training.lr=1", "training.lr=1"),
    ],
)
def test_a_plus_too_many_is_named(override: str, written: str) -> None:
    with pytest.raises(RequestError) as raised:
        compose([override, "seed=1"])
    assert str(raised.value).startswith(f"{override}: write {written}, without the +; ")
