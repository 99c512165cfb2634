"""The command line: `python -m tlx key=value …` runs, `python -m tlx VERB …` does the rest.

Results go to stdout, progress and errors to stderr. Exit codes: 0 all well, 1 a run failed, 2 the request was wrong,
130 interrupted.
"""

import argparse
import atexit
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from tlx import clock, streams, tracking_uri
from tlx.errors import RequestError, empty, nearest, said, shown
from tlx.runtime import FULL, import_from_here

if TYPE_CHECKING:
    from tlx.summary import Summary

# verb → (its room, what it does)
ROOMS = {
    "resume": ("resume", "go on with an interrupted run where it stopped"),
    "compare": ("compare", "the runs of a sweep side by side, with paired tests"),
    "search": ("search", "look for the best values by validation, with Optuna"),
    "predict": ("predict", "classify files and folders with a saved model"),
    "evaluate": ("measure", "measure a saved model on other data"),
    "export": ("export", "write a saved model as ONNX, torch.export or a state dict"),
    "weights": ("weights_inventory", "list what the backbones need, and fetch it"),
    "data": ("data_inventory", "list the data sets, fetch and verify them"),
    "sync": ("sync", "send MLflow what it has not got of a run, from the run's folder"),
    "cache": ("cache", "list or remove the features that runs keep for each other"),
}
VERBS = {verb: what for verb, (_, what) in ROOMS.items()}

EXAMPLES = """\
examples:
  python -m tlx                                                     the default: ImageNet features on drawn shapes
  python -m tlx dataset=image_folder dataset.root=~/photos          your own images, one sub-folder a class
  python -m tlx strategy=finetune backbone=resnet50                 more of the network learns
  python -m tlx -m strategy=feature_extraction,finetune seed=0,1,2  every combination
  python -m tlx -m strategy=feature_extraction,finetune seeds=5 sweep.name=first    typed again, it goes on
  python -m tlx compare first                                       its table, with paired tests
  python -m tlx predict outputs/2026-01-31/12-00-00-… photo.jpg     use the model of a run
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out one command line and gives its exit code."""
    streams.use()
    arguments = tracking_uri.typed(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is stopped ends as with Ctrl-C
    began = time.perf_counter() - (clock.process_age() if argv is None else 0.0)
    try:
        if argv is None:
            import_from_here()
        with clock.command(began):
            if arguments and arguments[0] in VERBS:
                return _verb(arguments[0], arguments[1:])
            return _run(arguments)
    except RequestError as error:
        return _say(error, 2)
    except KeyboardInterrupt as error:
        print(f"tlx: interrupted{f': {error}' if str(error) else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _say(error, 2 if error.errno in FULL else 1)
    except Exception as error:  # the last resort: one line, and how to see more
        return _say(error, 1)
    finally:
        if argv is None:
            # All is written. An interruption while libraries clean up ends the process, without their tracebacks; what
            # is registered last runs first.
            for number in (signal.SIGINT, signal.SIGTERM):
                atexit.register(signal.signal, number, signal.SIG_DFL)


def run_overrides(overrides: list[str], config_dir: str | None = None) -> "Summary":
    """Composes, checks and carries out one run."""
    from tlx.compose import compose

    overrides = tracking_uri.typed(overrides)
    node = compose(overrides, config_dir)
    if _repeats(node):
        raise RequestError("seeds and folds make a sweep, not one run: python -m tlx does it, or a loop over seed")
    return _single(node, overrides, config_dir)


def _single(node: DictConfig, overrides: Sequence[str], config_dir: str | None) -> "Summary":
    from tlx.checks import checked
    from tlx.compose import folder, without_hydra
    from tlx.unread import Typed, unread

    config = checked(without_hydra(node))
    typed = Typed(overrides, unread(node, several=False))
    if config.sweep.name is not None:
        raise RequestError(f"sweep.name={config.sweep.name}: is for a sweep; add -m or seeds=…, or leave it out")
    from tlx import job
    from tlx.planned import command

    return job.run(config, folder(node, "hydra.run.dir"), command=command(overrides, config_dir), typed=typed)


def _run(arguments: list[str]) -> int:
    options = _options().parse_known_intermixed_args(arguments)
    known, rest = options
    for word in rest:
        flags = [flag for action in _options()._actions for flag in action.option_strings]
        raise RequestError(f"{word}: no such option{nearest(word, flags)}; --help lists them")
    _options().no_empty(known)
    if known.shell_completion:
        from tlx.compose import completion

        completion(known.overrides)
        return 0
    _stray_words(known.overrides)
    if known.help:
        print(_help(known.config_dir))
        return 0
    if known.version:
        from tlx import __version__

        print(f"tlx {__version__}")
        return 0
    if known.cfg:
        return _show(known)
    if known.package or known.resolve:
        raise RequestError(f"{'--package' if known.package else '--resolve'}: goes with --cfg, as in --cfg job")
    if known.info:
        from tlx.compose import info

        info(known.info, known.overrides, known.config_dir)
        return 0
    if known.dry_run:
        return _preview(known.overrides, known.config_dir, known.multirun)
    if known.multirun:
        return _multirun(known.overrides, known.config_dir)
    from tlx.compose import compose

    node = compose(known.overrides, known.config_dir)
    if _repeats(node):
        return _multirun(known.overrides, known.config_dir)
    summary = _single(node, known.overrides, known.config_dir)
    from tlx.display import closing
    from tlx.rank_processes import writes

    if writes():
        closing(summary)
    return 0


def _repeats(node: DictConfig) -> bool:
    """Whether it asks for several seeds or folds, and so for a sweep."""
    return node.seeds is not None or node.folds is not None


def _preview(overrides: list[str], config_dir: str | None, multirun: bool) -> int:
    from tlx.checks import checked
    from tlx.compose import compose, without_hydra
    from tlx.log_lines import lines
    from tlx.planned import plan
    from tlx.unread import Typed, unread

    node = None if multirun else compose(overrides, config_dir)
    if node is None or _repeats(node):
        with lines(quiet=True):
            planned = plan(overrides, config_dir)[0]
        asked = [(job.config, job.typed) for job in planned]
    else:
        planned, asked = [], [(checked(without_hydra(node)), Typed(overrides, unread(node, several=False)))]
    from tlx import preview

    for number, (config, typed) in enumerate(asked):
        if planned:
            job = " ".join(planned[number].overrides)
            print(f"{'' if number == 0 else chr(10)}job {number + 1} of {len(planned)}: {job}")
        with lines(quiet=True):
            told = preview.preview(config, typed)
        print("\n".join(told))
    return 0


def _multirun(overrides: list[str], config_dir: str | None) -> int:
    from tlx import rank_processes, sweep
    from tlx.log_lines import lines
    from tlx.planned import command, plan

    rank_processes.once("a sweep")
    with lines(quiet=True):
        jobs, folder = plan(overrides, config_dir)
        sweep.check_data(jobs)
    told = command(overrides, config_dir, multirun=True)
    whole = sweep.open_sweep(jobs, folder, told, config_dir)
    try:
        whole.launch()
        failed = whole.failed()
        unsaid = whole.close("FAILED" if failed else "FINISHED")
    except KeyboardInterrupt:
        again = "; the same command goes on" if jobs[0].config.sweep.name is not None else ""
        print(f"{len(whole.finished())} of {len(jobs)} jobs finished, in {whole.folder}{again}", file=sys.stderr)
        whole.tracker.finish("KILLED")
        raise
    except Exception as error:
        whole.tracker.finish("FAILED", said(error))
        raise
    print(f"{len(jobs) - len(failed)} of {len(jobs)} jobs finished, in {whole.folder}", file=sys.stderr)
    for reason in dict.fromkeys(reason for _, reason in failed):
        which = [job for job, why in failed if why == reason]
        numbers = ", ".join(str(jobs.index(job) + 1) for job in which)
        print(f"job{'s' if len(which) > 1 else ''} {numbers} failed: {reason}", file=sys.stderr)
        for job in which:
            print(f"  again: {job.command}", file=sys.stderr)
    if unsaid:
        print(f"all results are kept; to sum them up again: python -m tlx compare {whole.folder}", file=sys.stderr)
    return 1 if failed or unsaid else 0


def _verb(name: str, arguments: list[str]) -> int:
    """Carries out a verb: its room says what it takes (`options`) and does it (`main`)."""
    room: Any = import_module(f"tlx.{ROOMS[name][0]}")
    parser = _Parser(prog=f"tlx {name}", description=f"{VERBS[name][0].upper()}{VERBS[name][1:]}.")
    room.options(parser)
    given = parser.parse_intermixed_args(arguments)
    parser.no_empty(given)
    code: int = room.main(given)
    return code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line like all others."""

    def error(self, message: str) -> Any:
        raise RequestError(f"{message.removeprefix('argument ')}; {self.prog} --help says more")

    def no_empty(self, given: argparse.Namespace) -> None:
        """Refuses an argument without text: as a path it would be the current folder."""
        for action in self._actions:
            value = getattr(given, action.dest, None)
            words = value if isinstance(value, list) else [value]
            if any(isinstance(word, str) and not word.strip() for word in words):
                raise empty(action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest))


def _options() -> _Parser:
    parser = _Parser(prog="tlx", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-h", "--help", action="store_true", help="this text")
    parser.add_argument("-m", "--multirun", action="store_true", help="every combination of comma-separated values")
    parser.add_argument("--dry-run", action="store_true", help="the plan, its sizes and downloads; nothing is run")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"], help="print the configuration")
    parser.add_argument("-p", "--package", help="with --cfg: only this part")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: with all references resolved")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with YAML of your own")
    parser.add_argument("-i", "--info", nargs="?", const="all", help="what Hydra knows: all, defaults, searchpath, …")
    parser.add_argument("-sc", "--shell-completion", action="store_true", help="completion: tlx -sc install=bash")
    parser.add_argument("--version", action="store_true", help="the version")
    return parser


def _help(config_dir: str | None) -> str:
    from tlx.compose import choices
    from tlx.explained import GROUPS

    lines = ["tlx: which backbone and strategy works on your images, measured honestly", ""]
    lines += ["usage: python -m tlx [key=value …] [option …]        one run", ""]
    lines += [f"       python -m tlx {verb} …{' ' * (35 - len(verb))}{what}" for verb, what in VERBS.items()]
    lines += ["", EXAMPLES, "groups and their choices (group=choice; details with --cfg job):"]
    for group in GROUPS:
        lines.append(f"\n  {group}")
        lines += [f"    {name:<26}{about.split(': python')[0]}" for name, about in choices(group, config_dir).items()]
    lines += ["", "options:"]
    for action in _options()._actions:
        if action.option_strings:
            lines.append(f"  {', '.join(action.option_strings):<26}{action.help}")
    return "\n".join(lines)


def _show(known: argparse.Namespace) -> int:
    from tlx.compose import compose, without_hydra

    node = compose(known.overrides, known.config_dir)
    if known.cfg == "hydra":
        node = OmegaConf.masked_copy(node, "hydra")
    elif known.cfg == "job":
        node = without_hydra(node)
    if known.package:
        node = OmegaConf.select(node, known.package)
        if node is None:
            raise RequestError(f"--package {known.package}: no such part of the configuration")
    text = OmegaConf.to_yaml(node, resolve=known.resolve) if OmegaConf.is_config(node) else str(node)
    print(shown(text), end="")
    return 0


def _stray_words(words: Sequence[str]) -> None:
    for word in words:
        if not re.match(r"[+~]{0,2}[\w./@:-]+=|~[\w.]+", word):
            raise RequestError(
                f"{word}: neither key=value nor a verb{nearest(word, VERBS)}; verbs: {', '.join(VERBS)}; see --help"
            )


def _say(error: BaseException, code: int) -> int:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    print(f"tlx: {shown(said(error))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
