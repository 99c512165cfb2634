"""The command line: `python -m tlx key=value …` runs, `python -m tlx VERB …` does the rest.

Results go to stdout, progress and errors to stderr. Exit codes: 0 all well, 1 a run failed, 2 the request was wrong,
130 interrupted.
"""

import argparse
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from tlx.errors import RequestError, nearest
from tlx.runtime import FULL

if TYPE_CHECKING:
    from tlx.record import Summary

VERBS = {
    "predict": "classify files and folders with a saved model",
    "evaluate": "measure a saved model on other data",
    "export": "write a saved model as ONNX, torch.export or a state dict",
    "weights": "list what the backbones need, and fetch it",
    "data": "list the data sets, fetch and verify them",
    "cache": "list or remove the features that runs keep for each other",
}

EXAMPLES = """\
examples:
  python -m tlx                                                     the default: ImageNet features on drawn shapes
  python -m tlx dataset=image_folder dataset.root=~/photos          your own images, one sub-folder a class
  python -m tlx strategy=finetune backbone=resnet50                 more of the network learns
  python -m tlx -m strategy=feature_extraction,finetune seed=0,1,2  every combination
  python -m tlx predict outputs/2026-01-31/12-00-00-… photo.jpg     use the model of a run
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out one command line and gives its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a job that is stopped ends as with Ctrl-C
    try:
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


def run_overrides(overrides: list[str], config_dir: str | None = None) -> "Summary":
    """Composes, checks and carries out one run."""
    from tlx.checks import checked
    from tlx.compose import compose

    node = compose(overrides, config_dir)
    folder = _folder(node)
    config = checked(_ours(node))
    from tlx import job

    return job.run(config, folder, command=_command(overrides, config_dir))


def _run(arguments: list[str]) -> int:
    options = _options().parse_known_intermixed_args(arguments)
    known, rest = options
    for word in rest:
        flags = [flag for action in _options()._actions for flag in action.option_strings]
        raise RequestError(f"{word}: no such option{nearest(word, flags)}; --help lists them")
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
    summary = run_overrides(known.overrides, known.config_dir)
    from tlx.display import closing

    closing(summary)
    return 0


def _preview(overrides: list[str], config_dir: str | None, multirun: bool) -> int:
    from tlx.checks import checked
    from tlx.compose import compose, jobs

    planned = jobs(overrides, config_dir) if multirun else [overrides]
    configs = [checked(_ours(compose(job, config_dir))) for job in planned]
    from tlx import job

    for number, config in enumerate(configs):
        if multirun:
            print(f"{'' if number == 0 else chr(10)}job {number + 1} of {len(planned)}: {' '.join(planned[number])}")
        print("\n".join(job.preview(config)))
    return 0


def _multirun(overrides: list[str], config_dir: str | None) -> int:
    from tlx.checks import checked
    from tlx.compose import compose, jobs, multirun
    from tlx.record import new_folder

    planned = jobs(overrides, config_dir)
    composed = [compose(job, config_dir) for job in planned]
    for node in composed:  # every configuration error comes before the first job
        checked(_ours(node))
    folder = new_folder(Path(os.path.expanduser(str(composed[0].hydra.sweep.dir))).absolute())
    done: list[tuple[int, str]] = []

    def task(node: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        from tlx import job
        from tlx.display import closing

        number, folder = len(done), Path(HydraConfig.get().runtime.output_dir)
        print(f"\njob {number + 1} of {len(planned)}: {' '.join(planned[number])}", file=sys.stderr)
        done.append((1, "interrupted"))
        try:
            varied = [o for o in planned[number] if not all(o in other for other in planned)]
            command = _command(planned[number], config_dir)
            summary = job.run(checked(node), folder, command=command, name=" ".join(varied), within_sweep=True)
            done[number] = (0, "")
            closing(summary)
        except Exception as error:  # a failed job does not stop the others
            done[number] = (_say(error, 1), str(error))

    try:
        multirun(overrides, task, folder, config_dir)
    except KeyboardInterrupt:
        finished = sum(code == 0 for code, _ in done)
        print(f"{finished} of {len(planned)} jobs finished, in {folder}", file=sys.stderr)
        raise
    failed = [(number, reason) for number, (code, reason) in enumerate(done) if code]
    print(f"{len(done) - len(failed)} of {len(planned)} jobs finished", file=sys.stderr)
    for number, reason in failed:
        print(f"job {number + 1} failed: {reason}\n  again: {_command(planned[number], config_dir)}", file=sys.stderr)
    return 1 if failed else 0


def _verb(name: str, arguments: list[str]) -> int:
    """Carries out a verb: its room says what it takes (`options`) and does it (`main`)."""
    from tlx import cache, data_inventory, export, measure, predict, weights_inventory

    rooms = {
        "predict": predict,
        "evaluate": measure,
        "export": export,
        "weights": weights_inventory,
        "data": data_inventory,
        "cache": cache,
    }
    room: Any = rooms[name]
    parser = _Parser(prog=f"tlx {name}", description=f"{VERBS[name].capitalize()}.")
    room.options(parser)
    code: int = room.main(parser.parse_intermixed_args(arguments))
    return code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line like all others."""

    def error(self, message: str) -> Any:
        raise RequestError(f"{message.removeprefix('argument ')}; {self.prog} --help says more")


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
    from tlx.compose import GROUPS, choices

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
    from tlx.compose import compose

    node = compose(known.overrides, known.config_dir)
    if known.cfg == "hydra":
        node = OmegaConf.masked_copy(node, "hydra")
    elif known.cfg == "job":
        node = _ours(node)
    if known.package:
        node = OmegaConf.select(node, known.package)
        if node is None:
            raise RequestError(f"--package {known.package}: no such part of the configuration")
    text = OmegaConf.to_yaml(node, resolve=known.resolve) if OmegaConf.is_config(node) else str(node)
    print(text, end="")
    return 0


def _stray_words(words: Sequence[str]) -> None:
    for word in words:
        if not re.match(r"[+~]{0,2}[\w./@:-]+=|~[\w.]+", word):
            raise RequestError(
                f"{word}: neither key=value nor a verb{nearest(word, VERBS)}; verbs: {', '.join(VERBS)}; see --help"
            )


def _ours(node: DictConfig) -> DictConfig:
    """The configuration without Hydra's node."""
    copy = node.copy()
    with open_dict(copy):
        copy.pop("hydra", None)
    return copy


def _folder(node: DictConfig) -> Path:
    return Path(os.path.expanduser(str(node.hydra.run.dir))).absolute()


def _command(overrides: Sequence[str], config_dir: str | None) -> str:
    extra = ["--config-dir", config_dir] if config_dir else []
    return shlex.join(["python", "-m", "tlx", *extra, *overrides])


def _say(error: BaseException, code: int) -> int:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        traceback.print_exception(error)
    ours = type(error).__module__.startswith("tlx.")  # its message says all there is to say
    kind = "" if ours else f"{type(error).__name__}: "
    line = " ".join(str(error).split()) or type(error).__name__
    print(f"tlx: {kind}{line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
