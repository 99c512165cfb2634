"""Which network, and how much of it to train: the networks by probes, the best of them fine-tuned, one chosen."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlx.core import activity
from tlx.core.choose_by import DEFAULT
from tlx.recommendation import candidates
from tlx.recommendation.candidates import CandidateRun
from tlx.recommendation.journal import Journal, Step
from tlx.recommendation.judging import Judgement, distinguishable, fine_tuned, probed
from tlx.recommendation.pool import Member
from tlx.recommendation.request import RecommendationRequest
from tlx.recommendation.steps import Found, Steps
from tlx.reporting.text_table import duration
from tlx.sweeps.sweep_plan import Planned

if TYPE_CHECKING:
    from tlx.recommendation.trials import Trials

__all__ = ["RankedCandidate", "Recommender"]
RUNGS = (500, 2000, 8000)  # images on which networks are probed before all, where there are half as many again
FIXED = 9.0  # seconds for the last fit, its page, the saving and MLflow, on a machine that starts in `START` seconds
START = 6.0
AUDIT = 0.1  # share of the time that the audit may take
PER_CLASS = 10  # images of a class in the mean, that probes are worth anything
TEST, FEWEST = 0.2, 500  # share of the time for the test images, and how many are measured in any case
SLACK = 1.5  # what features take, against the network's own time


@dataclasses.dataclass(frozen=True)
class RankedCandidate:
    """A candidate, as it is judged.

    Attributes:
        judged: None of what was measured only.
        images: that it was judged on.
        knn: the accuracy of nearest neighbours in its features, 0..1; None for what is fine-tuned.
        seconds: that it took so far.
    """

    candidate: CandidateRun
    judged: Judgement
    images: int
    knn: float | None
    seconds: float
    parameters: int
    mb: float
    ms: float
    same: bool = True


class Recommender:
    """A recommendation under way, in its folder.

    Args:
        request: what was typed.
        members: the pool.
        trials: what prepares, probes and trains.
        folder: of the recommendation.
        began: when the command began, by time.monotonic.
    """

    def __init__(
        self, request: RecommendationRequest, members: Sequence[Member], trials: "Trials", folder: Path, began: float
    ) -> None:
        self.request, self.members, self.trials, self.folder = request, list(members), trials, folder
        self.probe, self.others = candidates.strategies(request)
        self.journal = Journal(folder)
        self.steps = Steps(self.journal, request.seconds, began)
        if self.journal.found("start") is None:
            self.journal.add("start", time.monotonic() - began, {})
        self.refused = dict[str, str]()

    def now(self) -> activity.State:
        """How much of the time is left, for a screen."""
        left = max(self.steps.left(), 0.0)
        words = f"{duration(left)} of {duration(self.request.seconds)} left"
        return activity.State([words], 1.0 - min(left / self.request.seconds, 1.0))

    def ranking(self) -> list[RankedCandidate]:
        """Measures, probes and fine-tunes as far as the time goes; the candidates, the best first."""
        short = AUDIT * self.request.seconds
        self.steps.run("audit", short, self._reserve(), self.trials.audit, most=short)
        alive = self._measured()
        test = self.steps.run("test images", 0.0, 0.0, self._test_images, must=True)
        assert test is not None
        self.trials.limit_test(test["limit"])
        rungs = self._rungs()
        judged = dict[str, dict[int, Judgement]]()
        for number, images in enumerate(rungs):
            for position, member in enumerate(alive):
                step = self._probe(member, images, must=number == position == 0)
                if step is not None:
                    judged.setdefault(member.name, {})[images] = self._judged_probe(member, images)
            alive = self._alive(alive, judged, images)
        probes = [self._ranked_probe(member, judged[member.name]) for member in self.members if member.name in judged]
        whole = [member for member in alive if rungs[-1] in judged.get(member.name, {})]
        tuned = self._tuned(whole, {member.name: judged[member.name][rungs[-1]] for member in whole})
        named = bool(self.request.strategies)  # then a probe is no answer, where there is another one
        return self._marked(tuned if named and tuned else [*probes, *tuned], judged)

    def _marked(self, found: list[RankedCandidate], judged: dict[str, dict[int, Judgement]]) -> list[RankedCandidate]:
        """The best first, each with whether it is distinguishable from the best."""
        order = {member.name: place for place, member in enumerate(self.members)}
        most = max(one.images for one in found)
        found = sorted(
            found,
            key=lambda one: (
                one.knn is not None and one.images < most,  # given up on fewer images than others
                -one.judged.score,
                one.knn is None,  # of equals the one that trains less, then the faster one
                one.ms,
                order[one.candidate.member.name],
            ),
        )
        best, pairs = found[0], list[tuple[Judgement, Judgement]]()
        for one in found[1:]:
            fewer = one.knn is not None and one.images < most
            probe = judged[best.candidate.member.name].get(one.images, best.judged)
            pairs.append((probe if fewer else best.judged, one.judged))
        apart = distinguishable(pairs)
        return [best, *(dataclasses.replace(one, same=not far) for one, far in zip(found[1:], apart, strict=True))]

    # ------------------------------------------------------------ networks

    def _measured(self) -> list[Member]:
        """The networks within the limits, the fastest first."""
        kept = list[tuple[float, int, Member]]()
        for place, member in enumerate(self.members):
            name = f"measure {member.name}"
            step = self.steps.run(
                name, self._each("measure", 3.0), self._reserve(), partial(self.trials.measure, member),
                must=place == 0,
            )  # fmt: skip
            if step is None:
                continue
            if why := self.request.limits.broken(step["parameters"], step["mb"], step["ms"]):
                self.refused[member.name] = why
                print(f"{member.name}: left out: {why}", file=sys.stderr)
                continue
            kept.append((step["ms"], place, member))
        return [member for _, _, member in sorted(kept, key=lambda one: one[:2])]

    def _each(self, kind: str, otherwise: float) -> float:
        """Seconds that a step of a kind has taken in the mean."""
        spent = [step["seconds"] for name, step in self.journal.steps.items() if name.startswith(f"{kind} ")]
        return float(np.mean(spent)) if spent else otherwise

    def _ms(self, member: Member) -> float:
        step = self.journal.found(f"measure {member.name}")
        return 0.0 if step is None else float(step["ms"])

    def _test_images(self) -> Found:
        """How many images are measured at the end: all, or as many as a share of the time is enough for."""
        slowest = max(self._ms(member) for member in self.members)
        fit = int(TEST * self.request.seconds / max(SLACK * slowest / 1000, 1e-9))
        return {"limit": max(fit, FEWEST)}, None

    # ------------------------------------------------------------ probes

    def _rungs(self) -> list[int]:
        total, fewest = self.trials.images, PER_CLASS * self.trials.classes
        return [*(images for images in RUNGS if images * 1.5 <= total and images >= fewest), total]

    def _probe(self, member: Member, images: int, *, must: bool) -> Step | None:
        name = f"probe {member.name} {images}"
        expected = round(self._expected(member, images), 3)
        make = partial(self.trials.probe, member, images, expected)
        return self.steps.run(name, self._pace() * expected, self._reserve(), make, must=must)

    def _expected(self, member: Member, images: int) -> float:
        """Seconds of a probe on a machine that nobody else uses; an earlier one has some of the rows."""
        done = [int(name.rsplit(" ", 1)[1]) for name in self.journal.steps if name.startswith(f"probe {member.name} ")]
        new = images - max([count for count in done if count < images], default=0)
        return 1.0 + new * SLACK * self._ms(member) / 1000 + min(images, 5000) * 1e-3

    def _pace(self) -> float:
        """What probes have taken, against what was expected of them; 1 before the first."""
        ratios = []
        for name, step in self.journal.steps.items():
            if name.startswith("probe ") and "expected" in step:
                ratios.append(step["seconds"] / step["expected"])
        return max(float(np.median(ratios)), 0.2) if ratios else 1.0

    def _reserve(self) -> float:
        """Seconds that the last fit takes, with the page and the saving."""
        start = self.journal.found("start")
        slow = max(1.0, (start["seconds"] if start else START) / START)
        slowest = max([self._ms(member) for member in self.members], default=0.0)
        return FIXED * slow + self._pace() * SLACK * self.trials.test_images * slowest / 1000

    def _judged_probe(self, member: Member, images: int) -> Judgement:
        found = self.journal.arrays(f"probe {member.name} {images}")
        return probed(found["correct"].astype(float), self._values(found), int(found["val"]))

    def _values(self, found: dict[str, Any]) -> Any:
        """Of each image what chooses: its log loss, or whether it is correct."""
        by_loss = self.trials.rule == DEFAULT
        return -found["loss"].astype(float) if by_loss else found["correct"].astype(float)

    def _alive(self, alive: list[Member], judged: dict[str, dict[int, Judgement]], images: int) -> list[Member]:
        """The networks that are not distinguishable from the best on so many images, the best first."""
        here = [member for member in alive if images in judged.get(member.name, {})]
        if not here:
            return alive
        here.sort(key=lambda member: -judged[member.name][images].score)
        best, others = here[0], here[1:]
        apart = distinguishable([(judged[best.name][images], judged[one.name][images]) for one in others])
        return [best, *(one for one, far in zip(others, apart, strict=True) if not far)]

    def _ranked_probe(self, member: Member, by: dict[int, Judgement]) -> RankedCandidate:
        images = max(by)
        step = self.journal.steps[f"probe {member.name} {images}"]
        spent = [s["seconds"] for name, s in self.journal.steps.items() if name.startswith(f"probe {member.name} ")]
        return self._ranked(CandidateRun(member, self.probe), by[images], images, step["knn"], sum(spent))

    def _ranked(
        self, candidate: CandidateRun, judged: Judgement, images: int, knn: float | None, seconds: float
    ) -> RankedCandidate:
        cost = self.journal.steps[f"measure {candidate.member.name}"]
        return RankedCandidate(candidate, judged, images, knn, seconds, cost["parameters"], cost["mb"], cost["ms"])

    # ------------------------------------------------------------ fine-tuning

    def _tuned(self, alive: Sequence[Member], probes: dict[str, Judgement]) -> list[RankedCandidate]:
        """What was trained further, of the networks that are left, as far as the time goes."""
        found = []
        for member in alive:
            for strategy in self.others:
                candidate = CandidateRun(member, strategy)
                cost = self.steps.run(
                    f"cost {candidate.name}", self._each("cost", 3.0), self._reserve(),
                    partial(self.trials.cost, candidate),
                )  # fmt: skip
                if cost is None:
                    self.steps.left_out.append(f"train {candidate.name}")
                    continue
                step = self.steps.run(
                    f"train {candidate.name}", cost["expected"], self._reserve(),
                    partial(self.trials.train, candidate),
                )  # fmt: skip
                if step is not None:
                    seen = self.journal.arrays(f"train {candidate.name}")
                    judged = fine_tuned(probes[member.name], seen["correct"].astype(float), self._values(seen))
                    found.append(self._ranked(candidate, judged, judged.val, None, step["seconds"]))
        return found

    def planned(self, one: RankedCandidate) -> Planned:
        """Its run: that of a probe on as many images as it was judged on."""
        return self.trials.planned(one.candidate, self._images(one))

    def final(self, chosen: RankedCandidate) -> Step:
        """The run of the chosen candidate, through to its page: the only one that looks at the test set."""
        images = self._images(chosen)
        name = f"final {chosen.candidate.name} {images}"
        step = self.steps.run(name, 0.0, 0.0, partial(self.trials.final, chosen.candidate, images), must=True)
        assert step is not None
        return step

    def _images(self, one: RankedCandidate) -> int:
        return one.images if one.knn is not None else self.trials.images
