"""The options of a run, and the text of --help."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from tlx.cli.argument_parser import Parser
from tlx.cli.subcommands import subcommands
from tlx.config.key_rules import rules
from tlx.config.schema import Config
from tlx.core.errors import RequestError, nearest

__all__ = ["help_text", "no_such_option", "refuse_stray_words", "run_options"]
RUN_WORDS = ("train", "run", "fit")  # subcommands of other programs for what tlx does without one

EXAMPLES = """\
examples:
  python -m tlx                                                     the default: ImageNet features on drawn shapes
  python -m tlx dataset=image_folder dataset.root=~/photos          your own images, one sub-folder per class
  python -m tlx strategy=finetune backbone=resnet50                 train more of the network
  python -m tlx -m strategy=feature_extraction,finetune seed=0,1,2  every combination
  python -m tlx -m strategy=feature_extraction,finetune seeds=5 sweep.name=first    run it again to resume
  python -m tlx compare first                                       its table, with paired tests
  python -m tlx predict latest photo.jpg                            use the model of the last run
  python -m tlx predict first photo.jpg                             use the model that the sweep chose
"""


def run_options() -> Parser:
    """The parser of a command line without a subcommand."""
    parser = Parser(prog="tlx", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-h", "--help", action="store_true", help="show this text")
    parser.add_argument(
        "-m", "--multirun", action="store_true", help="a sweep: every combination of comma-separated values"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the plan, its sizes and downloads; run nothing")
    parser.add_argument(
        "-c",
        "--cfg",
        choices=["job", "hydra", "all"],
        help="print the configuration, each key with a comment; run nothing",
    )
    parser.add_argument("-p", "--package", help="with --cfg: print only this part")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: resolve references between keys")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")
    parser.add_argument(
        "-i", "--info", nargs="?", const="all", help="information from Hydra: all, defaults, searchpath, …"
    )
    parser.add_argument(
        "-sc", "--shell-completion", action="store_true", help="install shell completion: tlx -sc install=bash"
    )
    parser.add_argument("--version", action="store_true", help="show the version")
    return parser


def help_text(config_dir: str | None) -> str:
    """What --help prints; `config_dir`: a folder with YAML whose choices are listed too."""
    from tlx.config.compose import choices
    from tlx.config.hydra_errors import GROUPS
    from tlx.config.key_comments import help_lines

    lines = ["tlx: a transfer-learning framework for image classification", ""]
    lines += ["usage: python -m tlx [key=value …] [option …]        one run", ""]
    for name, subcommand in subcommands().items():
        lines.append(f"       python -m tlx {name} …{' ' * (35 - len(name))}{subcommand.summary}")
    lines += ["", EXAMPLES, "groups and their choices (group=choice; details with --cfg job):"]
    for group in GROUPS:
        lines.append(f"\n  {group}")
        lines += [f"    {name:<26}{about.split(': python')[0]}" for name, about in choices(group, config_dir).items()]
    lines += ["", "other keys, with their defaults (--cfg job prints all keys with comments):", ""]
    lines += [*help_lines(), "", "options:"]
    for action in run_options()._actions:
        if action.option_strings:
            lines.append(f"  {', '.join(action.option_strings):<26}{action.help}")
    return "\n".join(lines)


def refuse_stray_words(words: Sequence[str]) -> None:
    """Raises a `RequestError` for the first word that is no override."""
    word = next((word for word in words if not re.match(r"[+~]{0,2}[\w./@:-]+=|~[\w.]+", word)), None)
    if word is None:
        return
    if word in RUN_WORDS:
        command = shlex.join(["python", "-m", "tlx", *(other for other in words if other != word)])
        raise RequestError(f"{word}: a run needs no subcommand; write {command}")
    if Path(os.path.expanduser(word)).is_dir():
        command = shlex.join(["python", "-m", "tlx", "dataset=image_folder", f"dataset.root={word}"])
        raise RequestError(f"{word}: is a folder; to train on the images in it: {command}")
    names = list(subcommands())
    raise RequestError(
        f"{word}: neither key=value nor a subcommand{nearest(word, names)}; subcommands: {', '.join(names)}; see --help"
    )


def no_such_option(word: str) -> RequestError:
    """What to say of an option that a run does not have: the nearest one, its key, the subcommands that have it."""
    flag = word.partition("=")[0]
    flags = [flag for action in run_options()._actions for flag in action.option_strings]
    key = _key_named(flag.lstrip("-").replace("-", "_"))
    having = [(name, metavar) for name, one in subcommands().items() if (metavar := one.value_of(flag)) is not None]
    hints = [f"for a run: {key}={having[0][1] if having else '…'}"] if key else []
    if having:
        after = "a subcommand" if len(having) > 3 else ", ".join(name for name, _ in having)
        hints.append(f"after {after}: {flag} {having[0][1]}".rstrip())
    if not hints:
        return RequestError(f"{word}: no such option{nearest(word, flags)}; --help lists them")
    return RequestError(f"{word}: no such option; {'; '.join(hints)}")


def _key_named(name: str) -> str:
    """The shortest key, or group, whose name or last name is `name`; empty where there is none."""
    found = [key for key, _, _ in rules(Config) if "<" not in key and name in (key, key.rpartition(".")[2])]
    return min(found, key=lambda key: (key.count("."), len(key)), default="")
