"""The options of a run, the list of subcommands, and the text of --help."""

import argparse
import re
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tlx.core.errors import RequestError, empty, nearest

if TYPE_CHECKING:
    pass

# What is done by a module of this package of the same name.
SUBCOMMANDS = {
    "resume": "go on with an interrupted run where it stopped",
    "compare": "the runs of a sweep side by side, with paired tests",
    "search": "look for the best values by validation, with Optuna",
    "predict": "classify files and folders with a saved model",
    "evaluate": "measure a saved model on other data",
    "export": "write a saved model as ONNX, torch.export or a state dict",
    "weights": "list what the backbones need, and fetch it",
    "data": "list the data sets, fetch and verify them",
    "sync": "send MLflow what it has not got of a run, from the run's folder",
    "cache": "list or remove the features that runs keep for each other",
}

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


def run_subcommand(name: str, arguments: list[str]) -> int:
    """Runs a subcommand: its module has its `options` and its `main`."""
    module: Any = import_module(f"tlx.cli.{name}")
    parser = _Parser(prog=f"tlx {name}", description=f"{SUBCOMMANDS[name][0].upper()}{SUBCOMMANDS[name][1:]}.")
    module.options(parser)
    given = parser.parse_intermixed_args(arguments)
    parser.no_empty(given)
    code: int = module.main(given)
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


def run_options() -> _Parser:
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


def help_text(config_dir: str | None) -> str:
    from tlx.config.compose import choices
    from tlx.config.hydra_errors import GROUPS

    lines = ["tlx: which backbone and strategy works on your images, measured honestly", ""]
    lines += ["usage: python -m tlx [key=value …] [option …]        one run", ""]
    lines += [f"       python -m tlx {name} …{' ' * (35 - len(name))}{what}" for name, what in SUBCOMMANDS.items()]
    lines += ["", EXAMPLES, "groups and their choices (group=choice; details with --cfg job):"]
    for group in GROUPS:
        lines.append(f"\n  {group}")
        lines += [f"    {name:<26}{about.split(': python')[0]}" for name, about in choices(group, config_dir).items()]
    lines += ["", "options:"]
    for action in run_options()._actions:
        if action.option_strings:
            lines.append(f"  {', '.join(action.option_strings):<26}{action.help}")
    return "\n".join(lines)


def refuse_stray_words(words: Sequence[str]) -> None:
    for word in words:
        if not re.match(r"[+~]{0,2}[\w./@:-]+=|~[\w.]+", word):
            raise RequestError(
                f"{word}: neither key=value nor a subcommand{nearest(word, SUBCOMMANDS)}; "
                f"subcommands: {', '.join(SUBCOMMANDS)}; see --help"
            )
