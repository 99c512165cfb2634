"""A solver of one's own is one function and one YAML: it trains, is cached, resumed and refused as tlx's own is."""

import json
from pathlib import Path

import pytest

import tlx
from tlx.cli.main import main
from tlx.config.compose import compose, without_hydra
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.runs import run

SMALL = ["backbone=small_cnn", "backbone.input_size=16", "dataset.train=12", "dataset.test=6", "tracking=none"]

MODULE = """
from collections.abc import Iterator

import torch
from torch.nn import functional

from tlx.training.solver_context import SolverContext, Trained


def lbfgs(context: SolverContext, tolerance: float = 1e-4) -> Iterator[Trained]:
    \"\"\"A linear probe to convergence: each epoch is a step of L-BFGS on all rows.\"\"\"
    (x, y), = context.fit.batches([torch.arange(len(context.fit.y))], 0)
    weights = [p for p in context.net.parameters() if p.requires_grad]
    before = float("inf")
    for _ in range(context.state.within, context.epochs):
        optimizer = torch.optim.LBFGS(weights, max_iter=20, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            found = functional.cross_entropy(context.tail(x), y) + 1e-3 * sum(w.square().sum() for w in weights)
            found.backward()
            return found

        now = float(optimizer.step(loss).detach())
        yield Trained(now, 1.0)
        if before - now < tolerance:
            return
        before = now


def broken(context: SolverContext) -> Iterator[Trained]:
    raise KeyError("of mine")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_solvers.py").write_text(MODULE)
    (tmp_path / "mine/solver").mkdir(parents=True)
    (tmp_path / "mine/solver/lbfgs.yaml").write_text("_target_: my_solvers.lbfgs\ntolerance: 1e-3\n")
    return tmp_path


CHOSEN = ["+solver@strategy.phases.probe.solver=lbfgs", "training.epochs=50"]


def test_a_solver_of_ones_own_is_a_function_and_a_yaml(here: Path) -> None:
    words = [*SMALL, *CHOSEN]
    found = tlx.run(words, "mine")
    rows = [json.loads(line) for line in (found.folder / "metrics.jsonl").read_text().splitlines()]
    assert 1 < len(rows) < 50  # it has converged
    assert rows[-1]["train_loss"] < 0.1
    assert {"phase", "epoch", "val_loss", "val_accuracy", "lr", "images_per_second", "seconds"} <= rows[0].keys()
    assert found.epochs == len(rows)
    assert found.identity == tlx.run([*words], "mine").identity != tlx.run([*SMALL, "training.epochs=1"]).identity


def test_its_run_is_resumed_to_the_bit(here: Path) -> None:
    config = checked(without_hydra(compose([*SMALL, *CHOSEN], "mine")))
    whole = run.run(config, here / "whole", command="")

    def stop(row: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.run(config, here / "cut", command="", watch=stop)
    assert main(["resume", "cut"]) == 0
    weights = [(here / name / "model/model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert whole.epochs > 1


def test_one_that_fails_is_refused_before_anything_is_written(here: Path) -> None:
    for solver, said in (
        ("{_target_: my_solvers.broken}", r"solver of phase probe: my_solvers.broken failed: KeyError: 'of mine'"),
        ("{_target_: my_solvers.lbfgs, tolerance: much}", "solver of phase probe: my_solvers.lbfgs does not take"),
        ("{_target_: my_solvers.lbfgs, speed: 1}", "solver.speed: my_solvers.lbfgs takes no such key"),
        ("{_target_: my_solvers.no}", "solver._target_=my_solvers.no: cannot be found"),
        ("sdg", r"strategy.phases.probe.solver=sdg: must be sgd, .* \(did you mean 'sgd'\?\)"),
        ("{speed: 1}", "strategy.phases.probe.solver={'speed': 1}: must be sgd"),
    ):
        with pytest.raises(RequestError, match=said):
            tlx.run([*SMALL, f"strategy.phases.probe.solver={solver}"])
    assert not (here / "outputs").exists()


def test_tlxs_own_named_by_its_target_is_the_same_run(here: Path) -> None:
    runs = [
        tlx.run([*SMALL, "training.epochs=2", f"strategy.phases.probe.solver={solver}"])
        for solver in ("sgd", "{_target_: tlx.training.solvers.sgd}")
    ]
    assert runs[0].test_loss == runs[1].test_loss
    assert runs[0].identity == runs[1].identity
