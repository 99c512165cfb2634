"""The candidates of a recommendation: a network and a strategy each, as an ordinary run would have them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tlx.config.command_line import command
from tlx.config.unread_keys import refuse
from tlx.core.yaml_trees import read_yaml
from tlx.recommendation.pool import Member
from tlx.recommendation.request import RecommendationRequest
from tlx.sweeps.sweep_plan import Planned, single

__all__ = ["CandidateRun", "CandidateStrategy", "checked", "planned", "strategies", "tuned_epochs"]
KNOWN = Path(__file__).parent / "strategies.yaml"
STEPS, FEWEST, MOST = 300, 3, 10  # of the optimizer that fine-tuning is to have, and epochs for that
BATCH = 32


@dataclass(frozen=True)
class CandidateStrategy:
    """What is trained of a network.

    Attributes:
        name: as a person calls it.
        overrides: what is typed for it.
        phase: the phase whose epochs follow from the number of training images; empty: none.
    """

    name: str
    overrides: tuple[str, ...]
    phase: str = ""


@dataclass(frozen=True)
class CandidateRun:
    """A network and a strategy."""

    member: Member
    strategy: CandidateStrategy

    @property
    def name(self) -> str:
        """As a person calls it."""
        return f"{self.member.name} {self.strategy.name}"


@cache
def _known() -> Mapping[str, Any]:
    found: dict[str, Any] = read_yaml(KNOWN)
    return found


def strategies(request: RecommendationRequest) -> tuple[CandidateStrategy, list[CandidateStrategy]]:
    """The probe, and what is tried beyond it: what was requested by name, or what is known to be worth it."""
    probe = _strategy(_known()["probe"])
    if request.strategies:
        named = [CandidateStrategy(name, (f"strategy={name}",)) for name in request.strategies]
        return probe, named
    return probe, [_strategy(one) for one in _known()["tuned"]]


def _strategy(facts: Mapping[str, Any]) -> CandidateStrategy:
    return CandidateStrategy(facts["name"], tuple(facts["overrides"]), facts.get("phase", ""))


def tuned_epochs(images: int) -> int:
    """The epochs of fine-tuning on so many training images: some hundred steps, within bounds."""
    return min(max(math.ceil(STEPS * BATCH / max(images, 1)), FEWEST), MOST)


def overrides(request: RecommendationRequest, candidate: CandidateRun, images: int) -> list[str]:
    """What a person would type for the candidate on so many training images; what was typed comes last."""
    phase = candidate.strategy.phase
    epochs = [f"strategy.phases.{phase}.epochs={tuned_epochs(images)}"] if phase else []
    typed = {word.partition("=")[0] for word in request.fixed}
    own = [word for word in (*candidate.strategy.overrides, *epochs) if word.partition("=")[0] not in typed]
    return [*request.fixed, *candidate.member.overrides, *own]


def planned(
    request: RecommendationRequest, candidate: CandidateRun, images: int, name: str, limits: Sequence[str] = ()
) -> Planned:
    """The candidate's run on so many training images, a job of the sweep `name`; `limits`: more overrides.

    Raises:
        RequestError: the configuration is wrong.
    """
    typed = [*overrides(request, candidate, images), *limits]
    own = {word.partition("=")[0] for word in limits}
    typed = [word for word in typed if word in limits or word.partition("=")[0] not in own]
    job = single([*typed, f"sweep.name={name}"], request.config_dir)[0]
    again = command(typed, request.config_dir)
    return replace(job, overrides=tuple(typed), command=again, name=candidate.name)


def checked(request: RecommendationRequest, members: Sequence[Member]) -> None:
    """Composes each network with the probe, and each strategy with the first network, before anything begins.

    Raises:
        RequestError: a key, a name or a value is wrong, or no candidate reads a key.
    """
    probe, others = strategies(request)
    every = [CandidateRun(member, probe) for member in members]
    every += [CandidateRun(members[0], strategy) for strategy in others]
    refuse([planned(request, candidate, 1000, "tried-out").typed for candidate in every])
