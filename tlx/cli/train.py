"""The command without a subcommand: one run, a sweep, a dry run, or the configuration printed."""

import argparse

from omegaconf import OmegaConf

from tlx.cli.run_options import help_text, no_such_option, refuse_stray_words, run_options
from tlx.core.activity import doing
from tlx.core.errors import RequestError, shown
from tlx.runs.request import is_sweep, run_single


def run_or_show(arguments: list[str]) -> int:
    """Runs a command line that begins with no subcommand, and returns its exit code."""
    known, rest = run_options().parse_known_intermixed_args(arguments)
    if rest:
        raise no_such_option(rest[0])
    run_options().no_empty(known)
    if known.shell_completion:
        from tlx.config.compose import completion

        completion(known.overrides)
        return 0
    refuse_stray_words(known.overrides)
    if known.help:
        print(help_text(known.config_dir))
        return 0
    if known.version:
        from tlx.core.version import __version__

        print(f"tlx {__version__}")
        return 0
    if known.cfg:
        return _show(known)
    if known.package or known.resolve:
        raise RequestError(f"{'--package' if known.package else '--resolve'}: needs --cfg, as in --cfg job")
    if known.info:
        from tlx.config.compose import info

        info(known.info, known.overrides, known.config_dir)
        return 0
    if known.dry_run:
        return _preview(known.overrides, known.config_dir, known.multirun)
    if known.multirun:
        return _multirun(known.overrides, known.config_dir)
    from tlx.config.compose import compose

    node = compose(known.overrides, known.config_dir)
    if is_sweep(node):
        return _multirun(known.overrides, known.config_dir)
    summary = run_single(node, known.overrides, known.config_dir)
    from tlx.cli.next_command import show_use
    from tlx.distributed.launch import writes
    from tlx.reporting.run_display import closing

    if writes():
        closing(summary)
        show_use(summary.folder)
    return 0


def _preview(overrides: list[str], config_dir: str | None, multirun: bool) -> int:
    from tlx.config.compose import compose, without_hydra
    from tlx.config.unread_keys import Typed, unread
    from tlx.config.validation import checked
    from tlx.reporting.log_lines import lines
    from tlx.sweeps.sweep_plan import plan

    node = None if multirun else compose(overrides, config_dir)
    if node is None or is_sweep(node):
        with lines(quiet=True), doing("composing the jobs"):
            planned = plan(overrides, config_dir)[0]
        requested = [(job.config, job.typed) for job in planned]
    else:
        planned, requested = [], [(checked(without_hydra(node)), Typed(overrides, unread(node, several=False)))]
    from tlx.runs import dry_run

    for number, (config, typed) in enumerate(requested):
        if planned:
            job = " ".join(planned[number].overrides)
            print(f"{'' if number == 0 else chr(10)}job {number + 1} of {len(planned)}: {job}")
        with lines(quiet=True), doing("making the plan"):
            preview = dry_run.preview(config, typed)
        print("\n".join(preview))
    return 0


def _multirun(overrides: list[str], config_dir: str | None) -> int:
    from tlx.cli.next_command import show_use
    from tlx.sweeps.sweep_request import run_sweep

    outcome = run_sweep(overrides, config_dir)
    if outcome.finished:
        show_use(outcome.folder, "chosen model")
    return 1 if outcome.failed or outcome.unsaid else 0


def _show(known: argparse.Namespace) -> int:
    from tlx.config.compose import compose, without_hydra
    from tlx.config.key_comments import commented

    node = compose(known.overrides, known.config_dir)
    if known.cfg == "hydra":
        node = OmegaConf.masked_copy(node, "hydra")
    elif known.cfg == "job":
        node = without_hydra(node)
    if known.package:
        node = OmegaConf.select(node, known.package)
        if node is None:
            raise RequestError(f"--package {known.package}: no such part of the configuration")
    if not OmegaConf.is_config(node):
        print(shown(str(node)))
        return 0
    text = shown(OmegaConf.to_yaml(node, resolve=known.resolve))
    print(text if known.cfg == "hydra" else commented(text, known.package or ""), end="")
    return 0
