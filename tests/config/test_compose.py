"""What a user types becomes one configuration, or one line that says what is wrong with it."""

import copy
from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from tlx.config import validation
from tlx.config.compose import choices, compose, compose_each, without_hydra
from tlx.config.hydra_errors import GROUPS
from tlx.config.hydra_session import CONF
from tlx.config.identity import identity
from tlx.config.multirun import jobs
from tlx.config.override_quoting import as_typed
from tlx.config.schema import Config
from tlx.config.validation import checked
from tlx.core.errors import RequestError


def config_of(*overrides: str, config_dir: str | None = None) -> Config:
    node = compose(overrides, config_dir).copy()
    with open_dict(node):
        node.pop("hydra")
    return checked(node)


def every_choice() -> list[tuple[str, str]]:
    return [(group, name) for group in GROUPS for name in choices(group)]


NEEDS = {
    ("backbone", "timm"): ["backbone.name=resnet18"],
    ("head", "neighbours"): ["strategy=knn"],
    ("experiment", "leaves_to_shoes"): ["source.dataset.root=a", "dataset.root=b"],
}


@pytest.mark.parametrize(("group", "name"), every_choice())
def test_every_yaml_composes_and_is_in_range(group: str, name: str) -> None:
    config = config_of(f"{group}={name}", *NEEDS.get((group, name), []))
    assert config.strategy.phases


def test_checking_changes_nothing_of_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    words = ("strategy=gradual", "source=shapes", "~strategy.phases.last", "training.lr_factor=2")
    given = OmegaConf.to_object(without_hydra(compose(words)))
    before = copy.deepcopy(given)
    monkeypatch.setattr(validation, "_typed", lambda node: node)
    first, second = checked(given), checked(given)
    assert given == before
    assert first == second
    assert (first.tracking.uri, before.tracking.uri) == ("http://mlflow.example", None)
    phase = first.strategy.phases["head"]
    assert (phase.epochs, phase.lr) == (first.training.epochs, 2 * first.training.lr)


@pytest.mark.parametrize(("group", "name"), every_choice())
def test_every_yaml_begins_with_what_it_is_and_the_command_that_uses_it(group: str, name: str) -> None:
    lines = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if "@package" not in line)
    assert first.startswith("# ")
    if (group, name) != ("source", "none"):
        assert "python -m tlx" in first


def test_the_contract_of_defaults() -> None:
    node = compose([])
    chosen = node.hydra.runtime.choices
    assert {group: chosen[group] for group in GROUPS if group != "experiment"} == {
        "backbone": "efficientnet_lite0",
        "head": "linear",
        "dataset": "shapes",
        "augmentation": "none",
        "strategy": "feature_extraction",
        "optimizer": "adam",
        "schedule": "constant",
        "loss": "cross_entropy",
        "source": "none",
        "tracking": "sqlite",
        "recipe": "none",
        "launch": "basic",
    }
    config = config_of()
    assert (config.seed, config.training.epochs, config.training.batch_size, config.training.lr) == (0, 10, 32, 1e-3)
    assert config.dataset.val_fraction == 0.2
    assert (config.runtime.device, config.runtime.precision, config.runtime.offline) == ("auto", "auto", False)


TYPED = [
    "~/photos",
    "/data/my photos",
    "/data/a=b",
    "/data/photos (2)",
    "/data/#1",
    "/data/фото/写真",
    "/data/it's",
    'C:\\data\\"new"',
    "/data/a, b",
    "/data/[1]{2}",
    "2024",
    "1e3",
    "true",
    "/data/100%",
    "/trailing\\",
    "choice(1,2)",
]


@pytest.mark.parametrize("value", TYPED)
def test_values_are_taken_as_typed(value: str) -> None:
    config = config_of("dataset=image_folder", f"dataset.root={value}", f"backbone.weights={value}")
    assert config.dataset.reader["root"] == value
    assert config.backbone.weights == value


def test_null_stays_null_and_a_quoted_value_stays_as_hydra_reads_it() -> None:
    assert config_of("dataset=image_folder", "dataset.root=null").dataset.reader["root"] is None
    assert config_of("dataset=image_folder", "dataset.root='a b'").dataset.reader["root"] == "a b"


def test_commas_separate_choices_under_multirun_only() -> None:
    found = jobs(["dataset=image_folder", "dataset.root=/a (1),/b #2", "seed=0,1"])
    roots = [config_of(*job).dataset.reader["root"] for job in found]
    assert roots == ["/a (1)", "/a (1)", "/b #2", "/b #2"]
    assert len(jobs(["seed=range(0,4)"])) == 4
    for word in ("output=/a b", "runtime.device=cuda:0", "tracking.uri=http://h:5000", "output=a\\b", "output=~/ü"):
        assert jobs([word, "seed=0,1"])[0][0] == word  # as typed, not as Hydra escapes it
    for word in ("output='a'", "output=it's", "output=2024", "output='1 2'"):
        assert config_of(*jobs([word])[0]) == config_of(word)
    assert as_typed("dataset.root=/a,/b", multirun=False) == "dataset.root='/a,/b'"


WRONG = {
    ("backbone=resnet5O",): "backbone=resnet5O: no such backbone (did you mean 'resnet50'?); there are alexnet",
    ("sede=3",): "sede=3: no such key (did you mean 'seed'?)",
    ("epochs=3",): "epochs=3: no such key (did you mean 'training.epochs'?)",
    ("strategi=full",): "strategi=full: no such key (did you mean 'strategy'?)",
    ("dataset.limit.trian=3",): "dataset.limit.trian=3: no such key (did you mean 'dataset.limit.train'?)",
    ("dataset.root=x",): "dataset.root=x: dataset=shapes has no such key; write dataset=image_folder dataset.root=x (",
    (
        "dataset.columns.label=x",
    ): "dataset=shapes has no such key; write dataset=huggingface dataset.columns.label=x (also with dataset=csv)",
    ("optimizer.momentum=0.9",): "optimizer=adam has no such key; write optimizer=",
    (
        "dataset=image_folder",
        "dataset.train=3",
    ): "has no such key (did you mean 'dataset.limit.train'?); there is one with dataset=new_shapes or shapes",
    ("dataset.quux=3",): "dataset.quux=3: no such key; dataset has audit, drop_duplicates, ",
    ("strategy=finetune", "strategy.phases.tune.train_from=layer5"): "layer5: no such stage",
    (
        "backbone=resnet18",
        "strategy=finetune",
        "strategy.phases.tune.train_from=layer5",
    ): "strategy.phases.tune.train_from=layer5: no such stage (did you mean 'layer4'?); stages: stem, layer1",
    ("strategy.phases.tune.lr=1",): "strategy.phases.tune.lr=1: this strategy has no phase tune; its phases: probe",
    ("strategy.phases.probe.optimizer=nadam",): "write +optimizer@strategy.phases.probe.optimizer=nadam",
    ("optimizer@strategy.phases.probe.optimizer=nadam",): "write +optimizer@strategy.phases.probe.optimizer=nadam",
    ("training.lr=abc",): "training.lr=abc: must be a number",
    ("training.epochs=2.5",): "training.epochs=2.5: must be a whole number",
    ("training.patience=none",): "training.patience=none: must be a whole number or null",
    ("training.refit=maybe",): "training.refit=maybe: must be true or false",
    ("strategy.phases.probe.learns=3",): "strategy.phases.probe.learns=3: must be a list",
    ("dataset.val_fraction=few",): "dataset.val_fraction=few: must be a number",
    ("training.epochs=0",): "training.epochs=0: must be at least 1",
    ("training.lr=0",): "training.lr=0.0: must be more than 0",
    ("strategy.phases.probe.lr=-1",): "strategy.phases.probe.lr=-1.0: must be more than 0",
    ("training.label_smoothing=1",): "training.label_smoothing=1.0: must be at least 0 and at most 0.99",
    ("training.class_weights=balance",): "must be balanced (did you mean 'balanced'?)",
    ("dataset.val_fraction=1",): "dataset.val_fraction=1.0: must be more than 0 and at most 0.9",
    ("dataset.on_error=ignore",): "dataset.on_error=ignore: must be fail, skip",
    ("seed=-1",): "seed=-1: must be at least 0",
    ("seed=1,2",): "must be a whole number; several values need -m",
    ("hydra.sweeper.params.seed=0,1",): "hydra.sweeper.params.seed=0,1: is not read here; write -m seed=0,1",
    ("hydra.sweeper.params={seed:1}",): "is not read here; write -m <key>=<value>,<value>",
    ("hydra.launcher.n_jobs=2",): "hydra.launcher.n_jobs: launch=basic has no such setting",
    ("hydra.swep.dir=x",): "hydra.swep.dir=x: no such key (did you mean 'hydra.sweep.dir'?); `python -m tlx --cfg hyd",
    ("runtime.device=gpu",): "runtime.device=gpu: must be auto, cpu, cuda, cuda:<number> or mps",
    ("features.mode=exat",): "features.mode=exat: must be auto, live, exact (did you mean 'exact'?)",
    ("strategy.phases.probe.learns=[al]",): "strategy.phases.probe.learns: al is not one of all, norm, bias",
    ("features.mode=exact", "runtime.precision=bf16"): "features.mode=exact: computes in fp32",
    ("+optimizer.lr=5",): "optimizer.lr=5: the learning rate is training.lr",
    ("head.dropout=2",): "head.dropout=2.0: must be at least 0",
    ("experiment=cifar10_resnet",): "experiment=cifar10_resnet: no such experiment (did you mean 'cifar10_resnet18'?)",
    ("backbone=timm",): "backbone.name: needs a value, as in backbone.name=…",
}


@pytest.mark.parametrize("overrides", WRONG, ids=lambda overrides: " ".join(overrides))
def test_what_is_wrong_is_said_in_one_line(overrides: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as raised:
        config_of(*overrides)
    assert WRONG[overrides] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_parameters_of_hydras_sweeper_are_refused_under_multirun_too() -> None:
    with pytest.raises(RequestError, match=r"hydra\.sweeper\.params\.seed=0,1: is not read here; write -m seed=0,1"):
        jobs(["hydra.sweeper.params.seed=0,1"])


SIBLINGS = [
    [["training.lr=1"], ["training.lr=2"], ["seed=3", "training.lr=2", "training.lr=0.5"]],
    [["backbone=resnet18", "seed=1"], ["seed=1", "backbone=resnet18", "head=append", "head.dropout=0.1"], []],
    [["strategy=lp_ft", f"strategy.phases.probe.lr={lr}", "dataset.root=~/my photos (2), all"] for lr in (1, 2)],
    [["experiment=shapes_transfer", "seeds=2"], ["experiment=shapes_transfer"], ["experiment=null", "seeds=null"]],
    [["+augmentation.more=1"], ["training.lr=2", "~strategy.phases.train", "training.batch_size=4"]],
    [["training.lr=2", "training={lr: 3}"], ["training={lr: 3}", "training.lr=2"]],
    [["hydra.job.name=a", "hydra/launcher=basic", "seed=1"], ["hydra.sweep.subdir=x", "runtime.threads=2"]],
    [["+dataset@source.dataset=shapes", "source.name=x", "seed=4"], ["output=elsewhere", "resume=auto"]],
]


@pytest.mark.parametrize("siblings", SIBLINGS)
def test_jobs_that_are_composed_together_are_those_composed_alone(siblings: list[list[str]]) -> None:
    def composed(overrides: list[list[str]]) -> list[object]:
        """Of each job, both halves of its configuration, resolved; or of all, what is wrong with one."""
        try:
            nodes = compose_each(overrides)
        except RequestError as error:
            return [str(error)]
        for node in nodes:
            OmegaConf.set_readonly(node.hydra, False)
            node.hydra.run.dir = node.hydra.sweep.dir = "has the time in it"
        return [(OmegaConf.to_container(node), OmegaConf.to_yaml(node, resolve=True)) for node in nodes]

    alone = [composed([one])[0] for one in siblings]
    assert composed(siblings) in (alone, [one for one in alone if isinstance(one, str)][:1])


@pytest.mark.parametrize("wrong", ["training.l=1", "seed=x", "strategy.phases.classifier.lr=", "backbone=resnet19"])
def test_what_is_wrong_with_one_of_many_jobs_is_said_as_of_one(wrong: str) -> None:
    with pytest.raises(RequestError) as alone:
        compose_each([[wrong]])
    with pytest.raises(RequestError) as among:
        compose_each([["seed=1"], [wrong]])
    assert str(among.value) == str(alone.value)


def test_a_wrong_choice_of_a_sweep_is_found_before_any_job() -> None:
    with pytest.raises(RequestError, match="no such backbone"):
        [config_of(*job) for job in jobs(["backbone=small_cnn,resnet5O"])]


def test_a_users_own_yaml_is_found(tmp_path: Path) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text("# Mine\nphases:\n  probe: {train_from: head, epochs: 3}\n")
    config = config_of("strategy=mine", config_dir=str(tmp_path))
    assert config.strategy.phases["probe"].epochs == 3
    assert choices("strategy", str(tmp_path))["mine"] == "Mine"
    with pytest.raises(RequestError, match=r"--config-dir .*: no such folder"):
        config_of(config_dir=str(tmp_path / "nowhere"))


def test_phases_inherit_from_training_and_the_groups() -> None:
    config = config_of("strategy=gradual", "training.epochs=7", "training.lr_factor=10", "optimizer=sgd")
    head, last, whole = config.strategy.phases.values()
    assert (head.epochs, last.epochs, whole.epochs) == (7, 7, 7)
    assert (head.lr, last.lr, whole.lr) == pytest.approx((1e-2, 1e-3, 1e-4))
    assert head.optimizer["_target_"] == "torch.optim.SGD"
    two = config_of("strategy=gradual", "+optimizer@strategy.phases.last.optimizer=nadam").strategy.phases
    assert two["head"].optimizer["_target_"] == "torch.optim.Adam"
    assert two["last"].optimizer["_target_"] == "torch.optim.NAdam"


def test_scratch_starts_from_random_weights_and_has_no_source() -> None:
    config = config_of("experiment=shapes_transfer", "strategy=scratch")
    assert config.backbone.weights == "none"
    assert config.source.dataset is None


def test_identity_ignores_where_things_lie_and_nothing_else() -> None:
    def of(*overrides: str) -> str:
        return identity(config_of("dataset=image_folder", *overrides), "data", "weights")

    same = of("dataset.root=/a")
    for override in (
        "dataset.root=/b",
        "output=/c",
        "tracking=none",
        "runtime.workers=3",
        "dataset.pretraining_overlap=all",
    ):
        assert of("dataset.root=/a", override) == same
    for override in ("seed=1", "training.lr=2e-3", "strategy=full", "augmentation=flip", "head=mlp"):
        assert of("dataset.root=/a", override) != same
    assert identity(config_of("dataset=image_folder"), "data", "weights", "blocks_10") != same


def test_the_shown_configuration_is_yaml_that_composes_again() -> None:
    node = compose(["strategy=gradual"]).copy()
    with open_dict(node):
        node.pop("hydra")
    again = OmegaConf.create(OmegaConf.to_yaml(node))
    assert list(again.strategy.phases) == ["head", "last", "all"]
