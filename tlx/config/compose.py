"""From what a user types to one configuration: the only room that knows Hydra.

Values are taken as typed (`dataset.root=~/my photos (2)`), and what Hydra or OmegaConf refuse becomes one line with
the nearest valid name.
"""

import contextlib
import copy
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from tlx.config import resolvers
from tlx.config.hydra_errors import GROUPS, explained, unknown_key
from tlx.config.hydra_keys import refuse_set, refuse_typed
from tlx.config.hydra_launchers import Elsewhere, Lost, collected
from tlx.config.override_quoting import as_typed, quote
from tlx.config.schema import Config
from tlx.core.errors import RequestError, empty

_HERE = Path(__file__).resolve().parent.parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"


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
    _register()
    found, merged = [], dict[tuple[str, ...], DictConfig]()
    with _initialized():
        for overrides in jobs:
            refuse_typed(overrides)
            typed = [*_search_path(config_dir), *(as_typed(override, multirun=False) for override in overrides)]
            files = tuple(line for line in typed if not _VALUE.match(line))
            if len(jobs) == 1 or not all(map(_CHOICE.match, files)):
                node = _compose(typed)
            else:
                if files not in merged:
                    merged[files] = _compose([*files])
                node = _with_values(merged[files], typed)
            for key in _added(node):
                given = next((o for o in overrides if o.startswith("+") and o.lstrip("+").startswith(key)), key)
                raise unknown_key(key, given, overrides)
            refuse_set(node)
            found.append(node)
    return found


def jobs(overrides: Sequence[str], config_dir: str | None = None) -> list[list[str]]:
    """The overrides of each job of a multirun, every one of them composed and found good."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    _register()
    refuse_typed(overrides)
    typed = [as_typed(override, multirun=True) for override in overrides]
    with _initialized():
        _compose(_search_path(config_dir))  # now Hydra knows the user's folder, too
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        try:
            parsed = parser.parse_overrides(typed)
            batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error, typed) from error
    for override in parsed:
        values = list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []
        for value in values:
            if values.count(value) > 1:
                raise RequestError(f"{override.input_line}: {value} is given twice")
    return [[_plain(override) for override in job] for batch in batches for job in batch]


def several(override: str) -> bool:
    """Whether it names several values under `-m`."""
    return OverridesParser.create().parse_override(as_typed(override, multirun=True)).is_sweep_override()


def launch(
    jobs: Sequence[Sequence[str]], task: Callable[[DictConfig], Any], folder: Path, config_dir: str | None = None
) -> list[Any]:
    """Runs `task` once for each job by Hydra's launcher (group `launch`); what it returned, or `Lost`, in their order.

    Args:
        jobs: each job's overrides as typed; `hydra.sweep.subdir=…` names its folder below `folder`.
        task: gets the job's configuration; its folder is `HydraConfig.get().runtime.output_dir`. It and what it
            returns are pickled where the launcher starts processes, so it is found by its module's name there.

    Raises:
        RequestError: the launcher's package is missing, or it cannot launch here; jobs differ in their launcher.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    typed = [[as_typed(override, multirun=False) for override in job] for job in jobs]
    about = re.compile(r"\W*(launch=|hydra[./](launch|sweeper))")
    for word in (override for job in typed for override in job if about.match(override)):
        if not all(word in job for job in typed):
            raise RequestError(f"{word}: a sweep has one launcher, the same for all of its jobs")
    with _hydra() as main:
        overrides = [*_search_path(config_dir), *typed[0], f"hydra.sweep.dir={quote(str(folder))}"]
        try:
            node = main.compose_config("config", overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise explained(error, overrides) from error
        name = node.hydra.runtime.choices["hydra/launcher"]
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=main.config_loader, callbacks=Callbacks(node)),
            task_function=task if name == "basic" else Elsewhere(task),
            config=node,
        )
        size = node.hydra.sweeper.get("max_batch_size") or len(typed)
        returned: list[Any] = []
        for start in range(0, len(typed), size):
            batch = typed[start : start + size]
            returned += collected(name, node.hydra.launcher, partial(launcher.launch, batch, start), len(batch))
    return [value if isinstance(value, Lost) else value.return_value for value in returned]


def info(about: str, overrides: Sequence[str], config_dir: str | None = None) -> None:
    """Prints what Hydra knows about the configuration: `all`, `defaults`, `searchpath`, …"""
    typed = [as_typed(override, multirun=False) for override in overrides]
    with _hydra() as main:
        try:
            main.show_info(about, "config", [*_search_path(config_dir), *typed])
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
        with _hydra() as main:
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


def _plain(override: str) -> str:
    """An override as it was typed: the sweeper has escaped it for Hydra's grammar."""
    parsed = OverridesParser.create().parse_override(override)
    value = parsed._value
    if isinstance(value, QuotedString):
        bare = f"{parsed.get_key_element()}={value.text}"
        return bare if as_typed(bare, multirun=False) == override else override  # the quotes may be the user's own
    return f"{parsed.get_key_element()}={value}" if isinstance(value, str) else override


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


def job_folder() -> Path:
    """Where the job that runs now, started by Hydra's launcher, has its folder."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.output_dir)


@cache
def _register() -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    resolvers.register()


@contextlib.contextmanager
def _initialized() -> Iterator[None]:
    # A run may be started from inside a Hydra job: put back what was there.
    outer, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3", job_name="tlx"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


@contextlib.contextmanager
def _hydra() -> Iterator[Any]:
    """Hydra's own commands, without its way to leave the process; its logging does not outlive them."""
    _register()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with _initialized():
            yield GlobalHydra.instance().hydra
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def _compose(typed: list[str]) -> DictConfig:
    try:
        return hydra.compose("config", typed, return_hydra_config=True)
    # ValueError: a group that is a number. AssertionError: a node of Hydra's own that is none any more.
    except (HydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
        raise explained(error, typed) from error
    except yaml.YAMLError as error:
        raise RequestError(f"a YAML file cannot be read: {' '.join(str(error).split())}") from error


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


def _search_path(config_dir: str | None) -> list[str]:
    if config_dir is None:
        return []
    folder = Path(os.path.expanduser(config_dir)).resolve()
    if not folder.is_dir():
        raise RequestError(f"--config-dir {config_dir}: no such folder")
    return [f"hydra.searchpath=[{quote('file://' + str(folder))}]"]
