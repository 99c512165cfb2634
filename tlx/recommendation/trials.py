"""What a recommendation has done: networks timed and probed, candidates trained as ordinary runs of one sweep."""

import dataclasses
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from tlx.core import folder_lock
from tlx.core.activity import doing
from tlx.core.device import use_threads
from tlx.core.errors import LeftUnmeasured
from tlx.core.stopwatch import Clock
from tlx.recommendation import candidates, probes
from tlx.recommendation.candidates import CandidateRun
from tlx.recommendation.pool import Member
from tlx.recommendation.request import RecommendationRequest
from tlx.reporting.log_lines import lines
from tlx.reporting.text_table import duration
from tlx.runs import run, run_state
from tlx.runs.prepare import Job, network, plans_of, prepare
from tlx.runs.run_name import run_name
from tlx.sweeps.sweep import SweepFolder
from tlx.sweeps.sweep_plan import Planned
from tlx.training.phase_length import lengthened

if TYPE_CHECKING:
    from tlx.recommendation.steps import Found
    from tlx.runs.started_run import StartedRun

__all__ = ["Trials"]
log = logging.getLogger("tlx")
# Images of a timed training step: as many small ones as train together, for a step on few of them takes hardly less
# time, and few large ones, since one of many would take seconds. Steps; the last one counts.
PIXELS, FEWEST, MOST, STEPS = 8 * 224 * 224, 8, 32, 2
ABOVE = 1.15  # what an epoch takes beside its steps
EACH = 3.0  # seconds of a run beside its training


class Trials:
    """The candidates of a request on its images, which are read once.

    Attributes:
        first: the job that was prepared first; the others take its images.
        rule: what chooses (`evaluation.choose_by`).
    """

    def __init__(self, request: RecommendationRequest, first: Job, member: Member) -> None:
        """`member`: whose job the first one is."""
        self.request, self.first, self.member = request, first, member
        self.limits = list[str]()
        self.rule = first.config.evaluation.choose_by
        self.sweep: SweepFolder | None = None
        self.name = ""
        self._probe_jobs = dict[str, Job]()
        self._planned = dict[tuple[object, ...], Planned]()  # composing one takes a sixth of a second

    @property
    def images(self) -> int:
        """How many train and validate."""
        return len(self.first.data.train) + len(self.first.data.val)

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.first.data.classes)

    @property
    def test_images(self) -> int:
        """How many test."""
        return len(self.first.data.test)

    def planned(self, candidate: CandidateRun, images: int | None = None) -> Planned:
        """A candidate's run on so many training and validation images; None: on all."""
        train, val = len(self.first.data.train), len(self.first.data.val)
        limits = list(self.limits)
        if images is not None and images < self.images:
            train, val = probes.parts(train, val, images)
            limits += [f"dataset.limit.train={train}", f"dataset.limit.val={val}"]
        key = (candidate.name, self.name, train, *limits)
        if key not in self._planned:
            self._planned[key] = candidates.planned(self.request, candidate, train, self.name, limits)
        return self._planned[key]

    def limit_test(self, images: int) -> None:
        """No candidate is measured on more test images than so many."""
        if images < self.test_images:
            print(f"test: {images:,} of {self.test_images:,} images, for the time", file=sys.stderr)
            self.limits = [f"dataset.limit.test={images}"]
            probe, _ = candidates.strategies(self.request)
            self.first = first_job(self.planned(CandidateRun(self.member, probe)))
            self._probe_jobs.clear()

    def audit(self) -> "Found":
        """The worst findings about the data, in lines."""
        from tlx.analysis.audit_lines import brief
        from tlx.runs.job_audit import audit_of_job

        if self.first.config.dataset.audit == "off":
            return {"lines": []}, None
        with doing("auditing the data"):
            found = list(brief(audit_of_job(self.first), 3))
        for line in found:
            print(line, file=sys.stderr)
        return {"lines": found}, None

    def measure(self, member: Member) -> "Found":
        """What a network costs."""
        found = probes.measured(self._probe_job(member))
        return dataclasses.asdict(found), None

    def probe(self, member: Member, images: int, expected: float) -> "Found":
        """What probes of a network's features say of so many images. `expected`: seconds, before it is known better."""
        job = self._probe_job(member)
        with lines(quiet=True):
            found = probes.probe(job, images, job.config.seed)
        logits, labels = torch.from_numpy(found.logits), torch.from_numpy(found.labels)
        loss = functional.cross_entropy(logits, labels, reduction="none").numpy()
        knn = float((found.knn == found.labels).mean())
        said = f"{found.correct.mean():.1%} of {len(labels):,} images out of fold, kNN {knn:.1%}"
        print(f"probe {member.name}: {said}", file=sys.stderr)
        facts = {"accuracy": float(found.correct.mean()), "loss": float(loss.mean()), "knn": knn, "images": len(labels)}
        return {**facts, "expected": expected}, {"correct": found.correct == 1, "loss": loss, "val": found.val}

    def cost(self, candidate: CandidateRun) -> "Found":
        """How long a candidate will train, from one of its steps."""
        job = self._job(self.planned(candidate))
        seconds, train, val = EACH, len(job.data.train), len(job.data.val)
        for name, phase in job.phases.items():
            plan = job.plans[name]
            each, forward = _step(job, plan.cut, plan.learning)
            seconds += ABOVE * (phase.epochs or 0) * (train * each + val * forward)
        return {"expected": round(seconds, 2)}, None

    def train(self, candidate: CandidateRun) -> "Found":
        """A candidate's run up to the look at the test set, and what it says of the validation images."""
        seen = dict[str, Any]()

        def judge(started: "StartedRun") -> None:
            from tlx.training.evaluation import logits, temperature

            job = started.job
            cut = list(job.plans.values())[-1].cut
            rows = started.features.rows(job.net, cut, "val")
            found = logits(job.net[cut:], rows, job.precision)
            scaled = found / temperature(found, rows.y)
            seen["correct"] = (found.argmax(1) == rows.y).cpu().numpy()
            seen["loss"] = functional.cross_entropy(scaled, rows.y, reduction="none").cpu().numpy()
            raise LeftUnmeasured

        planned = self.planned(candidate)
        try:
            self._run(planned, judge)
        except KeyboardInterrupt:  # LeftUnmeasured, or the time was over while what is known was written
            if not seen:
                raise
        accuracy = float(seen["correct"].mean())
        print(f"train {candidate.name}: {accuracy:.1%} of {len(seen['correct']):,} validation images", file=sys.stderr)
        return {"accuracy": accuracy, "loss": float(seen["loss"].mean()), "folder": planned.folder}, seen

    def final(self, candidate: CandidateRun, images: int) -> "Found":
        """The whole run of a candidate, on so many training and validation images."""
        planned = self.planned(candidate, images)
        assert self.sweep is not None
        folder = self.sweep.folder / planned.folder
        if run_state.finished(folder) is None:
            self._run(planned, None, whole=images >= self.images)
        return {"folder": planned.folder, "command": planned.command, "overrides": list(planned.overrides)}, None

    def _run(self, planned: Planned, judge: Any, *, whole: bool = True) -> None:
        """`whole`: on all images of the first job."""
        assert self.sweep is not None
        self.sweep.add(planned)
        folder = self.sweep.folder / planned.folder
        folder.mkdir(parents=True, exist_ok=True)
        part = run.Within(f"{self.sweep.book()['mlflow_key']}/{planned.key[:16]}", quiet=True)
        began = time.monotonic()
        with folder_lock.alone(folder, wait=True), doing(f"training {planned.name}"):
            run.run(
                planned.config, folder, command=planned.command, name=run_name(folder, planned.typed, planned.name),
                within=part, resume=True, typed=planned.typed, job=self._job(planned) if whole else None, judge=judge,
            )  # fmt: skip
        log.debug("%s: %s", planned.name, duration(time.monotonic() - began))

    def _probe_job(self, member: Member) -> Job:
        if member.name not in self._probe_jobs:
            probe, _ = candidates.strategies(self.request)
            self._probe_jobs[member.name] = self._job(self.planned(CandidateRun(member, probe)))
        return self._probe_jobs[member.name]

    def _job(self, planned: Planned) -> Job:
        """A job with the images of the first one, and a network of its own."""
        config, first = planned.config, self.first
        use_threads(config.runtime.threads)
        with doing(f"building {planned.config.backbone.name}"), lines(quiet=True):
            net, preprocessing = network(config, config.backbone, len(first.data.classes), first.device)
        preprocessing = dataclasses.replace(preprocessing, range=first.preprocessing.range)
        phases = lengthened(config.strategy.phases, len(first.data.train))
        return dataclasses.replace(
            first, config=config, net=net, preprocessing=preprocessing, plans=plans_of(config, net), phases=phases
        )


def first_job(planned: Planned) -> Job:
    """The job of a candidate, with its images read.

    Raises:
        RequestError: the images, the weights or a value cannot be used.
    """
    with lines(quiet=True):
        return prepare(planned.config, Clock(), planned.typed)


def _step(job: Job, cut: int, learning: "tuple[str, ...]") -> tuple[float, float]:
    """Seconds an image of a training step of what lies behind a cut, and of its forward pass alone."""
    size = job.preprocessing.input_size
    batch = min(max(PIXELS // size**2, FEWEST), MOST)
    pixels = torch.zeros(batch, 3, size, size, dtype=torch.uint8, device=job.device)
    names = set(learning)
    for name, parameter in job.net.named_parameters():
        parameter.requires_grad_(name in names)
    job.net.eval()
    with torch.no_grad():
        x = job.net[:cut](pixels) if cut else pixels
    taken = forward = 0.0
    for _ in range(STEPS):
        began = time.perf_counter()
        loss = functional.cross_entropy(job.net[cut:](x), torch.zeros(batch, dtype=torch.int64, device=job.device))
        forward = (time.perf_counter() - began) / batch
        torch.autograd.backward(loss)
        if job.device.type == "cuda":
            torch.cuda.synchronize()
        taken = (time.perf_counter() - began) / batch
    return taken, forward
