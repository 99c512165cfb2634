"""What the subcommands `weights` and `data` share: their arguments, the choices of a group, how a row is printed."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import open_dict

from tlx.cli.subcommand import Subcommand
from tlx.config.compose import compose
from tlx.config.group_entries import entries
from tlx.config.schema import Config
from tlx.config.validation import checked
from tlx.core.errors import RequestError, nearest, reason

__all__ = ["Request", "config_of", "entries", "put", "request", "show", "show_all", "subcommand"]


@dataclass(frozen=True)
class Request:
    """What is requested: `action` is empty for the list; `names` are choices of the group, `overrides` key=value."""

    action: str
    names: tuple[str, ...]
    overrides: tuple[str, ...]


Run = Callable[[Request, str | None, str | None], int]


def subcommand(name: str, summary: str, what: str, actions: Sequence[str], run: Run) -> Subcommand:
    """A subcommand about a group's choices, `what`: `run` gets the request, `--to` and `--config-dir`."""

    def options(parser: argparse.ArgumentParser) -> None:
        said = f"nothing for the list; or {' or '.join(actions)}, then names of {what} and key=value"
        parser.add_argument("words", nargs="*", metavar="WORD", help=said)
        parser.add_argument(
            "--to", metavar="FOLDER", help="with fetch: the folder to put it in, to carry it to another machine"
        )
        parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")

    def main(given: argparse.Namespace) -> int:
        return run(request(given, actions), given.to, given.config_dir)

    return Subcommand(name, summary, options, main)


def request(given: argparse.Namespace, actions: Sequence[str]) -> Request:
    """The words in order.

    Raises:
        RequestError: an action that does not exist, one without a name, `--to` where nothing is fetched.
    """
    action, *rest = given.words or [""]
    if action and action not in actions:
        raise RequestError(
            f"{action}: must be {' or '.join(actions)}{nearest(action, actions)}, or nothing for the list"
        )
    overrides = tuple(word for word in rest if "=" in word)
    names = tuple(word for word in rest if "=" not in word)
    if action and not names:
        raise RequestError(f"{action}: needs a name, as the list without {action} has them")
    if given.to is not None and action != "fetch":
        raise RequestError("--to: is only for fetch")
    return Request(action, names, overrides)


def config_of(overrides: Sequence[str], config_dir: str | None) -> Config:
    """The configuration of a run with `overrides`, every value checked."""
    node = compose(overrides, config_dir)
    with open_dict(node):
        node.pop("hydra")
    return checked(node)


def put(source: Path, target: Path, to: str) -> None:
    """Copies a file or a folder to `target`, which is whole or not there; `to`: as it was given, for the error.

    Raises:
        RequestError: it cannot be written.
    """
    if target.exists() and target.samefile(source):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            copy = Path(scratch, target.name)
            shutil.copytree(source, copy) if source.is_dir() else shutil.copyfile(source, copy)
            os.replace(copy, target)
    except OSError as error:
        raise RequestError(f"--to {to}: {target} cannot be written ({reason(error).lower()})") from error


def show_all(group: str, config_dir: str | None, row: Callable[[str, dict[str, Any]], list[str]]) -> None:
    """Prints every choice of a group; `row`: what is said of one, by its name and its keys."""
    for choice, (about, keys) in entries(group, config_dir).items():
        try:
            show(choice, [about, *row(choice, keys)])
        except RequestError as error:  # a YAML of the user's own; the others are listed all the same
            show(choice, [about, str(error)])


def show(name: str, lines: Iterable[str]) -> None:
    """A row of the list: the name, and the lines beside it."""
    for number, line in enumerate(lines):
        print(f"{name if number == 0 else '':<20}{line}")
