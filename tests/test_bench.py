"""The benchmark: both sides do the same work, figures come out as they went in, what is wrong is said."""

import json
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import open_dict
from PIL import Image
from torch import nn

from bench import __main__ as door
from bench import (
    counts,
    forward,
    growth,
    intervals,
    made_counts,
    plain,
    runner,
    scale,
    small_images,
    startup,
    synthetic,
    tables,
)
from bench.works import BY_NAME, WORKS, Work
from tests.conftest import ROOT
from tlx.comparison.comparison import compared
from tlx.config.compose import compose
from tlx.config.multirun import jobs
from tlx.config.schema import Config
from tlx.config.validation import checked
from tlx.core.errors import RequestError
from tlx.datasets import readers
from tlx.sweeps.sweep_plan import plan

MACHINE: dict[str, Any] = {
    "processor": "Made up", "cores": 2, "threads": 2, "amx_bf16": True, "bf16": True, "gpu": None,
    "versions": {"torch": "2.15.0"}, "peak": {"fp32": 1e11, "bf16": 1e12},
    "flops": {a: {"": 100, "fc": 10, "layer4": 20, "classifier": 30} for a in ("resnet18", "resnet50", "alexnet")},
}  # fmt: skip
FAST = {"plain": 1.0, "careful": 2.0, "lightning": 0.5, "fastai": 0.8, "synthetic": 1.0}  # as fast as the plain loop


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as that of ants/bees: 2 × 4 training images, 2 × 2 to test."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, n in (("train", 4), ("val", 2)):
        for name in ("ants", "bees"):
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = generator.integers(0, 256, (64, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i}.png")
    return folder


def made_up(
    *, gpu: str | None = None, bf16: bool = True, units: bool = True, tlx: float = 100.0, **changes: Any
) -> dict[str, Any]:
    """Results of all works, two rounds; tlx is `tlx` times as fast as the plain loop.

    `bf16`: whether it is what tlx computes in; `units`: whether anything computes it.
    """
    peak = {name: value for name, value in MACHINE["peak"].items() if units or name != "bf16"}
    machine = {**MACHINE, "gpu": gpu, "bf16": bf16, "peak": peak}
    works = [work for work in WORKS if gpu or not work.cuda]
    repetitions = []
    for work in works:
        for number in range(1 if work.measure == "accuracy" else 2):
            for contender in work.contenders(machine):
                times = FAST.get(contender, 1.5 * tlx if contender == "one run" else tlx)
                seconds = (100.0 + number) / times
                figures = {"seconds": seconds, "wall": seconds + 1, "peak_mib": 300.0, "images_per_second": 10 * times}
                accuracy = {"accuracy": [0.9 + 0.01 * i for i in range(10)]} if work.measure == "accuracy" else {}
                one = {"work": work.name, "contender": contender, "round": number, "peak_share": 0.5}
                repetitions.append({**one, **figures, **accuracy})
    results = {
        "date": "2026-01-31T12:00:00+00:00", "machine": machine, "rounds": 2, "whole": False, "left_out": {},
        "absent": {}, "works": [work.name for work in works], "repetitions": repetitions, **changes,
    }  # fmt: skip
    return {**results, "rows": tables.rows(results)}


def config(work: Work, variant: str) -> Config:
    words = work.tlx(variant, Path("/data"), Path("/out"))
    if "-m" in words:
        words.remove("-m")
        planned = jobs(words)
        assert len(planned) == (8 if work.name == "sweep" else 10)
        words = planned[-1]
    node = compose(words)
    with open_dict(node):
        del node["hydra"]
    return checked(node)


@pytest.mark.parametrize(("name", "variant"), [(work.name, variant) for work in WORKS for variant in work.variants])
def test_every_work_is_the_same_for_tlx_and_for_the_loops(name: str, variant: str) -> None:
    work = BY_NAME[name]
    found = config(work, variant)
    (phase,) = found.strategy.phases.values()
    assert (phase.epochs, phase.batch_size) == (work.epochs, work.batch_size)
    assert phase.optimizer["_target_"].rpartition(".")[2].lower() == work.optimizer
    assert found.dataset.reader["root"] == "/data"
    assert found.dataset.reader["name"] == {"ants-bees": "ants_bees", "cifar": "cifar10"}[work.data]
    assert bool(found.augmentation.transforms) is (work.augment != "none")
    if work.arch is None:
        assert found.backbone.weights == "imagenet"
        return
    assert (found.backbone.name, found.backbone.weights, found.backbone.input_size) == (work.arch, "none", 224)
    learning = {"conv1": "all", "layer4": "last"}
    assert phase.train_from == learning.get(work.train[0], "classifier")
    assert name == "sweep" or phase.lr == work.lr
    for loop in work.loops:
        words = work.loop(loop, Path("/data"), 2, workers=3)
        assert words[:2] == ["-m", f"bench.{loop}"] or loop in ("careful", "lightning", "fastai")
        if loop == "synthetic":
            continue
        given = plain.options(words[2:])
        assert (given.arch, tuple(given.train), given.epochs) == (work.arch, work.train, 2)
        assert (given.batch_size, given.optimizer, given.lr) == (work.batch_size, work.optimizer, work.lr)
        assert (given.augment, given.amp, given.workers) == (work.augment, loop == "careful", 3 * (loop != "plain"))
        limit = found.dataset.limit
        assert given.limit is None or given.limit == [limit.train, limit.test]


def test_claims_name_contenders_that_take_part() -> None:
    assert len(BY_NAME) == len(WORKS)
    for work in WORKS:
        for claim in work.claims:
            assert {claim.contender, claim.against} <= set(work.contenders(MACHINE))
    without = BY_NAME["classifier"].contenders({**MACHINE, "bf16": False})
    assert "tlx fp32" in without
    assert "tlx" not in without, "auto is fp32 there: once is enough"


def test_nothing_is_measured_in_a_format_that_the_machine_has_no_units_for(photos: Path) -> None:
    results = made_up(bf16=False, units=False)
    machine = results["machine"]
    for work in WORKS:
        assert not {"careful", "synthetic", "bf16"} & {*work.contenders(machine)}
    given = door.options(["--ants-bees", str(photos)])
    works, left_out = door.chosen(given, machine)
    assert left_out["careful loop"] == "computes in bf16, for which this machine has no units"
    assert left_out["accuracy-ants-bees"] == "compares bf16, for which this machine has no units"
    assert "accuracy-views" in [work.name for work in works]
    assert not {"careful loop", "accuracy-ants-bees"} & door.chosen(given, MACHINE)[1].keys()
    results |= {"works": [work.name for work in works], "left_out": left_out}
    text = tables.markdown({**results, "rows": tables.rows(results)})
    assert "a large matrix product: fp32 0.10 TFLOP/s, bf16 not measured (no units for it)." in text
    assert "- careful loop: left out, computes in bf16, for which this machine has no units" in text
    assert "bf16 autocast" not in text


def test_the_plain_loop_says_its_figures_in_one_line(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--images", str(photos), "--epochs", "1", "--batch-size", "4"]
    plain.main(words)
    careful = runner.process([sys.executable, "-m", "bench.plain", *words, "--amp"])
    assert careful.code == 0, careful.error
    assert careful.peak_mib > 100
    for out in (capsys.readouterr().out, careful.out):
        (line,) = out.splitlines()
        said = json.loads(line)
        assert said["images"] == [8, 4]
        assert len(said["epochs"]) == 1
        assert said["seconds"] == said["data"] + sum(said["epochs"]) > 0
        assert 0 <= said["accuracy"] <= 1
    assert said["seconds"] < careful.wall


def test_the_network_of_the_loops_learns_where_it_shall() -> None:
    given = plain.options(["--images", "x", "--train", "layer4", "fc"])
    net: Any = plain.network(given, 7)
    assert {n.split(".")[0] for n, p in net.named_parameters() if p.requires_grad} == {"layer4", "fc"}
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    before = net.conv1.weight.clone()
    plain.solver(given, net.parameters()).step()
    assert torch.equal(before, net.conv1.weight)


def test_a_rate_counts_every_image_that_goes_through() -> None:
    seen: list[int] = []

    class Counts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return x

    found = synthetic.rate(Counts(), torch.zeros(5, 3), at_least=0.0)
    assert found > 0
    assert sum(seen) % 20 == 5, "one pass that is not counted, then four at a time"


def test_epochs_that_were_not_run_count_as_the_median_of_the_later_ones() -> None:
    work = BY_NAME["classifier"]
    said = {"images": [20, 10], "data": 2.0, "epochs": [5.0, 3.0, 1.0], "seconds": 11.0, "accuracy": 0.5}
    figures = runner.loop_figures(work, "plain", said, 20.0, MACHINE)
    assert figures["seconds"] == figures["training"] == 2 + 5 + 24 * 2
    assert figures["images_per_second"] == pytest.approx(25 * 30 / 55)
    flops = 25 * (20 * (90 + 30) + 10 * 100)
    assert figures["peak_share"] == pytest.approx(flops / 55 / 1e11)
    whole = runner.loop_figures(BY_NAME["command"], "plain", said, 20.0, MACHINE)
    assert whole["seconds"] == 20 - 9 + 53, "imports and all else once"


def test_tlx_is_measured_by_its_own_summary() -> None:
    seconds = {"data": 1.0, "features": 2.0, "training": 3.0, "evaluation": 4.0, "total": 10.0}
    job = {"status": "finished", "command": "python -m tlx seed=0", "seconds": seconds, "precision": "bf16",
           "images": {"train": 8, "val": 2, "test": 6}, "test_accuracy": 0.75}  # fmt: skip
    figures = runner.tlx_figures(BY_NAME["classifier"], [job], 15.0, MACHINE)
    assert figures["seconds"] == 6
    assert figures["images_per_second"] == pytest.approx(25 * 10 / 6)
    assert figures["peak_share"] == pytest.approx(16 / 2 * 90 / 1e12)
    assert runner.tlx_figures(BY_NAME["command"], [job], 15.0, MACHINE)["seconds"] == 15
    views = runner.tlx_figures(BY_NAME["views"], [job], 15.0, MACHINE)
    assert views["peak_share"] == pytest.approx((4 * 8 + 2 + 6) / 2 * 90 / 1e12)
    rate = runner.tlx_figures(BY_NAME["gpu-features-resnet18"], [job], 15.0, MACHINE)
    assert rate["images_per_second"] == 8
    later = {**job, "command": "python -m tlx seed=1", "test_accuracy": 0.5}
    assert runner.tlx_figures(BY_NAME["accuracy-cifar"], [later, job], 15.0, MACHINE)["accuracy"] == [0.75, 0.5]
    for bad in ([], [job, {**later, "status": "failed"}]):
        with pytest.raises(ValueError, match="no finished run"):
            runner.tlx_figures(BY_NAME["classifier"], bad, 15.0, MACHINE)


def test_ratios_are_of_medians_and_say_whether_they_are_what_is_required() -> None:
    rows = {row["work"]: row for row in made_up(gpu="H1", tlx=33.0)["rows"]}
    (against_plain, against_careful) = rows["gpu-command-resnet18"]["claims"]
    assert against_plain["ratio"] == pytest.approx(33)
    assert against_careful["ratio"] == pytest.approx(33 / 2)
    assert [against_plain["met"], against_careful["met"]] == [True, True]
    assert rows["classifier"]["claims"][0]["met"] is None, "that ratio is required of a CPU"
    assert rows["gpu-features-resnet50"]["claims"][0]["ratio"] == pytest.approx(33)
    rows = {row["work"]: row for row in made_up(tlx=33.0)["rows"]}
    assert [claim["met"] for claim in rows["classifier"]["claims"]] == [False, False]
    assert rows["cifar"]["claims"][0]["met"] is True
    assert rows["sweep"]["claims"][0] | {"ratio": 0} == {
        "contender": "sweep",
        "against": "one run",
        "ratio": 0,
        "met": True,
    }
    assert rows["sweep"]["claims"][0]["ratio"] == pytest.approx(1.5)


def test_an_interval_is_students() -> None:
    values = [0.93, 0.95, 0.94, 0.95, 0.96, 0.93, 0.94, 0.95, 0.94, 0.95]
    mean, half = tables.interval(values)
    assert mean == pytest.approx(statistics.mean(values))
    assert half == pytest.approx(2.262 * statistics.stdev(values) / 10**0.5)
    assert tables.interval([0.5])[1] == float("inf")


def test_accuracies_are_compared_seed_by_seed() -> None:
    results = made_up()
    for one in results["repetitions"]:
        if one["work"] == "accuracy-cifar" and one["contender"] == "bf16":
            one["accuracy"] = [a - 0.02 - 0.0004 * (i % 2) for i, a in enumerate(one["accuracy"])]
    rows = {row["work"]: row for row in tables.rows(results)}
    assert rows["accuracy-ants-bees"]["differs"] is False
    worse = rows["accuracy-cifar"]
    assert worse["differs"] is True, "although the two intervals overlap"
    assert worse["met"] is True
    assert worse["difference"][0] == pytest.approx(-0.0202)
    text = tables.markdown({**results, "rows": tables.rows(results)})
    assert (
        "bf16: 92.5 ± 2.2 % | fp32: 94.5 ± 2.2 % | -2.02 ± 0.02 points | yes | within the interval of fp32, met" in text
    )


def test_the_table_has_every_work_and_says_what_is_not_there() -> None:
    results = made_up(
        left_out={"gpu-layer4-resnet18": "needs a GPU"},
        absent={work.name: {"fastai": "fastai"} for work in WORKS},
    )
    results["repetitions"] = [one for one in results["repetitions"] if one["contender"] != "fastai"]
    failed = {"work": "views", "contender": "tlx", "round": 0, "failed": "tlx: no such key", "wall": 1.0}
    results["repetitions"] = [
        one for one in results["repetitions"] if (one["work"], one["contender"]) != ("views", "tlx")
    ] + [failed]
    results["rows"] = tables.rows(results)
    text = tables.markdown(results)
    for work in WORKS:
        assert (work.title in text) is not work.cuda
    assert (
        "| ants/bees, classifier, 25 epochs, bf16 | 100.5 s | 50.2 s | 201.0 s | not installed | 1.0 s | 100× |" in text
    )
    assert "≥ 80×, met" in text
    assert "crop_flip, 20 epochs, 4 views | 100.5 s | 50.2 s | 201.0 s | not installed | – | – | ≥ 8× |" in text
    assert "- gpu-layer4-resnet18: left out, needs a GPU" in text
    assert "- views, tlx: failed: tlx: no such key" in text
    assert "The loops ran 2 epochs" in text
    assert "The loops ran all their epochs" in tables.markdown({**results, "whole": True})
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ants/bees, classifier, 25")}
    assert widths == {9, 6}, "the two tables"


@pytest.mark.parametrize(
    "results",
    [made_up(), made_up(gpu="H1"), made_up(bf16=False), made_up(bf16=False, units=False), {**made_up(), "rows": []}],
)
def test_the_chart_is_a_picture(results: dict[str, Any], tmp_path: Path) -> None:
    tables.chart(results, tmp_path / "results.png")
    with Image.open(tmp_path / "results.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 1350


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "nothing to measure: give --ants-bees FOLDER, --cifar FOLDER or both"),
        (["--cifar", "{tmp}/none"], "--cifar {tmp}/none: no such folder"),
        (["--cifar", "{tmp}"], "--cifar {tmp}: there is no folder cifar-10-batches-py in it"),
        (["--ants-bees", "{tmp}"], "--ants-bees {tmp}: there is no folder train in it"),
        (["--ants-bees", "{photos}", "--only", "layer5"], "--only layer5: no such work (did you mean 'layer4'?)"),
        (["--ants-bees", "{photos}", "--rounds", "0"], "--rounds 0: must be at least 1"),
        (["--ants-bees", "{photos}", "--rounds", "x"], "--rounds: invalid int value: 'x'; --help says more"),
        (["--round", "1"], "unrecognized arguments: --round 1; --help says more"),
        (["--ants-bees", "{photos}", "--out", "{tmp}/file/x"], "--out {tmp}/file/x: cannot be made: Not a directory"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], line: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    given = [word.format(tmp=tmp_path, photos=photos) for word in words]
    assert door.main(given) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert captured.err.startswith(f"bench: {line.format(tmp=tmp_path, photos=photos)}")


def test_works_without_their_data_are_left_out_and_said_so(photos: Path) -> None:
    given = door.options(["--ants-bees", str(photos), "--only", "layer4", "cifar", "gpu-command-resnet18"])
    works, left_out = door.chosen(given, MACHINE)
    assert [work.name for work in works] == ["layer4"]
    assert left_out == {"cifar": "needs --cifar FOLDER", "gpu-command-resnet18": "needs a GPU"}


def test_a_contender_that_fails_is_one_line_of_the_results(tmp_path: Path) -> None:
    figures = runner.repetition(BY_NAME["classifier"], "tlx", tmp_path / "none", MACHINE, whole=False)
    assert set(figures) == {"failed", "wall"}
    assert figures["failed"].startswith("tlx: dataset.root=")


def test_what_measures_stays_small() -> None:
    """A child's peak memory counts from its parent's."""
    code = "import sys, bench.__main__; print(*{'torch', 'matplotlib', 'torchvision', 'mlflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_error_of_the_command_line_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="expected one argument"):
        door.options(["--out"])


def test_forward_passes_are_compared_network_by_network(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(net: Any, x: Any, precision: str) -> Any:
        raise RuntimeError("cannot\nat all")

    monkeypatch.setattr(forward, "WAYS", {"modules": forward.modules, "tlx": forward.own, "broken": broken})
    monkeypatch.setattr("sys.argv", ["forward", "--networks", "squeezenet1_1", "--rounds", "1", "--seconds", "0.01"])
    forward.main()
    line, *_, row = capsys.readouterr().out.strip().splitlines()
    figures = json.loads(line)
    assert figures["broken"] == {"failed": "RuntimeError: cannot"}
    assert figures["tlx"]["difference"] < 1e-4
    ratio = figures["tlx"]["images_per_second"] / figures["modules"]["images_per_second"]
    assert row.startswith("| squeezenet1_1 | ")
    assert row.endswith(f"| failed | {ratio:.2f}× |")


def test_intervals_hold_the_truth_of_made_populations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "IMAGES", (150,))
    monkeypatch.setattr(intervals, "DRAWS", 40)
    logits, labels = intervals.made(4000, 3, 0)
    found = intervals.coverage(logits, labels, 150, 100, 0)
    assert all(share >= 0.87 for share in found.values()), found  # 95 %, less what 100 draws scatter
    before, after, worst = intervals.few_images(2 * logits, labels, 40, 0)
    assert after < before
    assert worst < 1.1
    report = list(intervals.lines({"made": (logits, labels)}, 2, 0))
    assert len(report) == 5


def test_growth_is_a_table_and_a_picture_of_one_file_of_results(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    common = {"busy": 1.0, "own_mib": 1.0, "processor": "Made up"}
    for number, seconds, peak in ((1_000, 9.0, 100.0), (1_000, 2.0, 100.0), (3_000, 6.0, 120.0)):
        growth.add(file, {"series": "a", "number": number, "seconds": seconds, "peak_mib": peak, **common})
    growth.add(
        file, {"series": "b", "number": 1_000, "seconds": 1, "peak_mib": 1, "unfinished": "interrupted", **common}
    )
    rows = growth.known(file)
    assert [(row["series"], row["number"]) for row in rows] == [("a", 1_000), ("a", 3_000), ("b", 1_000)]
    lines = growth.table(rows, "images").splitlines()
    assert lines[0] == "| | 1,000 images | 3,000 images | ms a further one | KiB a further one |"
    assert lines[2] == "| a | 2.0 s, 100 MiB | 6.0 s, 120 MiB | 2.00 | 10.2 |"
    assert lines[3] == "| b | – | – | – | – |"
    growth.chart(rows, "images", tmp_path / "growth.png")
    with Image.open(tmp_path / "growth.png") as picture:
        assert picture.width == 1500


def test_copies_of_jobs_are_as_many_configurations_and_images_have_as_many_classes(tmp_path: Path) -> None:
    source = Path(__file__).parent / "assets" / "0.1.0" / "sweeps" / "lr"
    made_counts.sweep(source, tmp_path / "copies", 7)
    found = compared(sorted(file.parent for file in (tmp_path / "copies").glob("*/summary.json")))
    assert len(found.configurations) == 7
    assert all(one.n == 1 for one in found.configurations)
    made_counts.classes(tmp_path, 5)
    parts = readers.image_folder(str(tmp_path / "data"))
    assert len(parts.classes) == 5
    assert len(parts.train) == 3 * len(parts.test or ()) == 15


def test_every_command_of_growth_is_one_that_python_takes(tmp_path: Path) -> None:
    for what, commands in counts.COMMANDS.items():
        assert counts.NUMBERS[what]
        for typed in commands.values():
            module, *words = typed(tmp_path, 20)
            assert module in ("-m", "-c")
            assert all(isinstance(word, str) for word in words)
    assert len(plan(counts.jobs(tmp_path, 20), None)[0]) == 20


def test_sources_of_growth_hold_the_same_images_and_a_command_that_is_interrupted_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_images.folder(tmp_path / "files", 25)
    small_images.shards(tmp_path / "shards", 25)
    with tarfile.open(tmp_path / "shards" / "00.tar") as made:
        for name, label, content in small_images.pictures(25):
            assert (tmp_path / "files" / f"class{label}" / f"{name}.png").read_bytes() == content
            member = made.extractfile(f"{name}.png")
            assert member is not None
            assert member.read() == content
    ends = iter(
        [runner.Done(130, "", "interrupted", 4.0, 6.0, 90.0, 50.0), runner.Done(0, "", "", 3.0, 5.0, 80.0, 60.0)]
    )
    monkeypatch.setattr(scale, "process", lambda *_: next(ends))
    words = ["--sources", "folder", "--images", "25", "--commands", "audit", "--work", str(tmp_path), "--most", "4"]
    assert scale.main(words) == 1
    assert scale.main(words) == 0
    (row,) = growth.known(tmp_path / "results.json")
    assert (row["seconds"], row["busy"], row["peak_mib"], row["own_mib"]) == (7.0, 11.0, 90.0, 60.0)
    assert "unfinished" not in row


def test_startup_compares_each_round_with_its_own_import(tmp_path: Path) -> None:
    table = startup.commands(tmp_path, ["seed=1"])
    pairs = {name: [(1.0, 2.0), (2.0, 4.0)] if name == startup.TORCH else [(2.0, 2.0), (4.0, 4.0)] for name in table}
    pairs["a sweep of 10 jobs with MLflow"] = [(10.0, 18.0), (12.0, 20.0)]
    lines = startup.markdown(table, pairs).splitlines()
    assert "| `predict` of one image | 3.00 | 3.00 | 2.00× | 1.00× | ≤ 1.6×, not met |" in lines
    assert "| a run without MLflow | 3.00 | 3.00 | 2.00× | 1.00× | ≤ 2.3×, met |" in lines
    assert "| a sweep's further job with MLflow | 1.00 | 2.00 | 0.75× | 0.75× | ≤ 1.0 s, met |" in lines
    rounds = [table["a sweep of 2 jobs with MLflow"].words(number) for number in range(3)]
    assert len({word for words in rounds for word in words if word.startswith("training.lr=")}) == 3
