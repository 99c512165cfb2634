"""A recommendation from what was typed: prepared, carried on with, its answer written."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlx.config.command_line import command
from tlx.core import activity, folder_lock
from tlx.core.activity import doing
from tlx.core.errors import said
from tlx.distributed import launch
from tlx.recommendation import answer, candidates, store
from tlx.recommendation.candidates import CandidateRun
from tlx.recommendation.journal import EVIDENCE
from tlx.recommendation.pool import members, widening
from tlx.recommendation.request import RecommendationRequest
from tlx.reporting.screen import live
from tlx.runs.output_layout import output
from tlx.sweeps import sweep
from tlx.sweeps.sweep_plan import single

if TYPE_CHECKING:
    from tlx.recommendation.answer import Answer

__all__ = ["run_recommendation"]


@live("preparing the recommendation")
def run_recommendation(request: RecommendationRequest, typed: Sequence[str], began: float) -> "Answer":
    """Finds and trains the best candidate within the time of a request.

    Args:
        request: what was requested.
        typed: the words after `recommend`, for the command that goes on with it.
        began: when the command began, by time.monotonic.

    Raises:
        RequestError: the request is wrong.
    """
    launch.once("a recommendation")
    with doing("composing the candidates"):
        pool = members(request)
        candidates.checked(request, pool)
        probe, _ = candidates.strategies(request)
        first = candidates.planned(request, CandidateRun(pool[0], probe), 1000, "tried-out")
        plain, _ = single([*request.fixed, *pool[0].overrides], request.config_dir)
    from tlx.recommendation.recommender import Recommender
    from tlx.recommendation.trials import Trials, first_job

    job = first_job(first)
    line = command(["recommend", *typed], request.config_dir)
    folder = store.opened(
        output(first.config), request.name, store.request_key(plain.config, job.data.fingerprint), line
    )
    (folder / EVIDENCE).mkdir(exist_ok=True)
    with folder_lock.alone(folder / EVIDENCE):  # the folder's own lock is for its list of runs
        trials = Trials(request, job, pool[0])
        trials.name = folder.name
        trials.sweep = sweep.open_sweep(
            [candidates.planned(request, CandidateRun(pool[0], probe), len(job.data.train), folder.name)],
            folder, line, request.config_dir, growing=True,
        )  # fmt: skip
        try:
            work = Recommender(request, pool, trials, folder, began)
            with activity.whole(work.now):
                ranked = work.ranking()
                final = work.final(ranked[0])
            with doing("writing the answer"):
                found = answer.write(work, ranked, final, line, widening(request))
        except BaseException as error:
            ended = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            trials.sweep.end(ended, said(error))
            if ended == "interrupted":
                print(f"{folder} has what is done; running the same command again goes on", file=sys.stderr)
            raise
        trials.sweep.end("finished")
    return found
