"""From what a user types to one configuration, by Hydra.

Values are taken as typed (`dataset.root=~/my photos (2)`), and what Hydra or OmegaConf refuse becomes one line with
the nearest valid name.
"""

import copy
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tlx.config.hydra_errors import GROUPS, explained, unknown_key
from tlx.config.hydra_keys import refuse_set, refuse_typed
from tlx.config.hydra_session import CONF, composed, hydra_commands, initialized, search_path
from tlx.config.override_quoting import as_typed
from tlx.core.errors import RequestError, empty


def compose(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The configuration of one run, with Hydra's own node `hydra` in it.

    Args:
        overrides: `key=value` as typed.
        config_dir: a folder with a user's own YAML, searched after tlx's.

    Raises:
        RequestError: a name or value that does not exist, with the nearest one that does.
    """
    return compose_each([overrides], config_dir)[0]


def compose_each(jobs: Sequence[Sequence[str]], config_dir: str | None = None) -> list[DictConfig]:
    """As `compose`, for each of `jobs`.

    Hydra takes a tenth of a second to find and merge the files; jobs that choose the same ones share that.
    """
    found, merged = [], dict[tuple[str, ...], DictConfig]()
    with initialized():
        for overrides in jobs:
            refuse_typed(overrides)
            chosen = [_chosen(override, config_dir) for override in overrides]
            typed = [*search_path(config_dir), *(as_typed(override, multirun=False) for override in chosen)]
            files = tuple(line for line in typed if not _VALUE.match(line))
            if len(jobs) == 1 or not all(map(_CHOICE.match, files)):
                node = composed(typed)
            else:
                if files not in merged:
                    merged[files] = composed([*files])
                node = _with_values(merged[files], typed)
            for key in _added(node):
                given = next((o for o in overrides if o.startswith("+") and o.lstrip("+").startswith(key)), key)
                raise unknown_key(key, given, overrides)
            refuse_set(node)
            found.append(node)
    return found


def info(about: str, overrides: Sequence[str], config_dir: str | None = None) -> None:
    """Prints what Hydra knows about the configuration: `all`, `defaults`, `searchpath`, …"""
    typed = [as_typed(override, multirun=False) for override in overrides]
    with hydra_commands() as main:
        try:
            main.show_info(about, "config", [*search_path(config_dir), *typed])
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error, typed) from error


def completion(request: Sequence[str]) -> None:
    """Answers a shell: `install=bash` prints what to evaluate, `query=bash` the words that may follow."""
    shells = [f"{what}={shell}" for what in ("install", "uninstall", "query") for shell in ("bash", "zsh", "fish")]
    if len(request) != 1 or request[0] not in shells:
        raise RequestError(f"-sc {' '.join(request)}: must be one of {', '.join(shells)}")
    if request[0].startswith("query") and "COMP_LINE" not in os.environ:
        raise RequestError(f'-sc {request[0]} is for the shell; to install completion: eval "$(tlx -sc install=bash)"')
    before, sys.argv[0] = sys.argv[0], "tlx"  # the command that is completed
    try:
        with hydra_commands() as main:
            main.shell_completion("config", list(request))
    finally:
        sys.argv[0] = before


def choices(group: str, config_dir: str | None = None) -> dict[str, str]:
    """The YAMLs of a group with the first comment line of each, the user's own included."""
    found = {}
    for folder in [CONF, *([Path(os.path.expanduser(config_dir))] if config_dir else [])]:
        for file in sorted((folder / group).glob("*.yaml")):
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise RequestError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
            said = (line[1:].strip() for line in lines if line.startswith("# ") and "@package" not in line)
            found[file.stem] = next(said, "")
    return found


def without_hydra(node: DictConfig) -> DictConfig:
    """The configuration without Hydra's node."""
    copied = node.copy()
    with open_dict(copied):
        copied.pop("hydra", None)
    return copied


def text(node: DictConfig, key: str) -> str:
    """A text of Hydra's node, what it refers to filled in.

    Raises:
        RequestError: it refers to something that is not there, or is empty.
    """
    try:
        found = str(OmegaConf.select(node, key, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise RequestError(f"{key}: cannot be filled in: {str(error).strip().splitlines()[0]}") from error
    if not found.strip():
        raise empty(f"{key}=")
    return found


def folder(node: DictConfig, key: str) -> Path:
    """The folder that `key` of Hydra's node names, absolute. Raises as `text`."""
    return Path(os.path.expanduser(text(node, key))).absolute()


def _chosen(override: str, config_dir: str | None) -> str:
    """`evaluation.unknown.dataset=NAME` as the choice of a data set's YAML, where it names one and not a folder."""
    key, _, value = override.partition("=")
    named = key == UNKNOWN and value in choices("dataset", config_dir)
    return f"+dataset@{override}" if named else override


UNKNOWN = "evaluation.unknown.dataset"
# What chooses no file; and what chooses one, or is Hydra's own. (The rest adds, removes, replaces a whole group.)
_VALUE = re.compile(r"(?!hydra\.)\w+(\.\w+)+=|(seed|seeds|folds|output|resume)=", re.ASCII)
_CHOICE = re.compile(rf"({'|'.join(GROUPS)})=|hydra[./]", re.ASCII)


def _with_values(merged: DictConfig, typed: Sequence[str]) -> DictConfig:
    """What Hydra makes of `typed`: `merged` has its files, and what Hydra sets after them is set here."""
    node = copy.deepcopy(merged)
    parsed = OverridesParser.create().parse_overrides([*typed])
    task = [override for override in parsed if not override.is_hydra_override()]
    values = [override for override in task if _VALUE.match(str(override.input_line))]
    try:
        ConfigLoaderImpl._apply_overrides_to_config(values, node)
    except (HydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
        raise explained(error, [*typed]) from error
    node.hydra.overrides.task = [override.input_line for override in task]
    node.hydra.job.override_dirname = get_overrides_dirname(task, **node.hydra.job.config.override_dirname)
    return node


def _added(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """The keys that `+key=value` has added where the schema is closed; nobody would read them."""
    kind = OmegaConf.get_type(node)
    fields = getattr(kind, "__dataclass_fields__", None)
    for name, value in node.items_ex(resolve=False):
        key = f"{prefix}{name!s}"
        if key in ("hydra.env", "hydra.launcher"):  # a group of Hydra's own; some launchers pass any value on
            continue
        if fields is not None and name not in fields and key != "hydra":
            yield key
        elif isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            yield from _added(value, f"{key}.")
