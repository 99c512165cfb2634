"""The learning rate of a phase that is `auto`: found by a range test before the phase, and kept."""

import dataclasses
import json
import logging
from typing import TYPE_CHECKING

from tlx.config.schema import AUTO
from tlx.core.activity import doing
from tlx.distributed import process_group
from tlx.runs.prepare import Job
from tlx.runs.started_run import StartedRun

if TYPE_CHECKING:
    from tlx.training.phase_plan import Plan

log = logging.getLogger("tlx")


def find_rate(run: StartedRun, name: str) -> None:
    """Finds the rate of a phase where it is `auto`; else nothing happens. The phase is trained as if it were typed.

    What was found is in the summary, which a checkpoint keeps: a run that goes on does not look for it again.

    Raises:
        RequestError: none can be found.
    """
    from tlx.training.mixing import rows_of
    from tlx.training.range_test import HIGHEST, range_test

    job, record, phase = run.job, run.record, run.job.phases[name]
    if phase.lr != AUTO:
        return
    if name not in record.summary.learning_rates:
        with run.clock.part("training"), doing(f"looking for the learning rate of phase {name}"):
            plan = _planned(job, name, HIGHEST)
            fit = rows_of(job.net, plan, phase, run.features, job.config)
            found = process_group.agreed(range_test(job.net, plan, phase, fit, job.config, job.precision))
        record.summary.learning_rates = {**record.summary.learning_rates, name: dataclasses.asdict(found)}
        factor = job.config.training.lr_factor
        times = "" if factor == 1 else f", times training.lr_factor={factor:g}"
        how = f"strategy.phases.{name}.lr=auto: range test of {len(found.rates)} steps"
        log.info("phase %s: learning rate %g%s (%s)", name, found.lr, times, how)
        if record.writes:
            from tlx.reporting.rate_plot import rate_plot

            rate_plot(found.rates, found.losses, found.smooth, found.lr, record.folder / f"learning_rate-{name}.png")
    known_rates(run)


def known_rates(run: StartedRun) -> None:
    """Puts the rates that were found into the job's phases and plans, and into `plan.json`."""
    job = run.job
    for name, found in run.record.summary.learning_rates.items():
        lr = found["lr"] * job.config.training.lr_factor
        job.plans[name] = _planned(job, name, lr)
        job.phases[name] = dataclasses.replace(job.phases[name], lr=lr)
    if run.record.summary.learning_rates and run.record.writes:
        run.record.write("plan.json", json.dumps(job.plan, indent=1))


def _planned(job: Job, name: str, lr: float) -> "Plan":
    """The plan of a phase at a rate."""
    from tlx.training import phase_plan

    at, layout = dataclasses.replace(job.phases[name], lr=lr), job.net.layout
    return phase_plan.plan(job.net, name, at, classifier=layout.classifier, fine=job.net.fine)
