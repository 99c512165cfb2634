"""From what a user types to one configuration: the only room that knows Hydra.

Values are taken as typed (`dataset.root=~/my photos (2)`), and what Hydra or OmegaConf refuse becomes one line with
the nearest valid name.
"""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlx.config import Config, Phase, flat
from tlx.errors import RequestError, nearest

_HERE = Path(__file__).resolve().parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
GROUPS = (
    "backbone", "head", "dataset", "augmentation", "strategy",
    "optimizer", "schedule", "source", "tracking", "experiment",
)  # fmt: skip

# Keys that hold text whatever it looks like: a folder may be called 2024 or null-set.
_TEXT = re.compile(r"(.*\.)?(root|weights|uri|output|name|experiment)")
_OVERRIDE = re.compile(r"(?P<key>[+~]{0,2}[\w./@:-]+)=(?P<value>.*)", re.DOTALL)


def compose(overrides: Sequence[str], config_dir: str | None = None) -> DictConfig:
    """The configuration of one run, with Hydra's own node `hydra` in it.

    Args:
        overrides: `key=value` as typed.
        config_dir: a folder with a user's own YAML, searched after tlx's.

    Raises:
        RequestError: a name or value that does not exist, with the nearest one that does.
    """
    _register()
    typed = [*_search_path(config_dir), *(as_typed(override, multirun=False) for override in overrides)]
    with _initialized():
        return _compose(typed)


def jobs(overrides: Sequence[str], config_dir: str | None = None) -> list[list[str]]:
    """The overrides of each job of a multirun, every one of them composed and found good."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    _register()
    typed = [as_typed(override, multirun=True) for override in overrides]
    try:
        batches = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(typed), max_batch_size=None)
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error, typed) from error
    return [job for batch in batches for job in batch]


def multirun(overrides: Sequence[str], task: Callable[[DictConfig], Any], config_dir: str | None = None) -> None:
    """Runs `task` once for each combination, by Hydra's sweeper and launcher."""
    typed = [*_search_path(config_dir), *(as_typed(override, multirun=True) for override in overrides)]
    delegate(["--multirun", *typed], task)


def delegate(argv: Sequence[str], task: Callable[[DictConfig], Any]) -> None:
    """Hands a command line over to Hydra's own main (multirun, --info, shell completion)."""
    _register()
    before, sys.argv = sys.argv, ["tlx", *argv]
    try:
        hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(task)()
    finally:
        sys.argv = before


def choices(group: str, config_dir: str | None = None) -> dict[str, str]:
    """The YAMLs of a group with the first comment line of each, the user's own included."""
    found = {}
    for folder in [CONF, *([Path(config_dir).expanduser()] if config_dir else [])]:
        for file in sorted((folder / group).glob("*.yaml")):
            lines = file.read_text(encoding="utf-8").splitlines()
            found[file.stem] = next((line[1:].strip() for line in lines if line.startswith("# ") and "@pack" not in line), "")
    return found


def as_typed(override: str, *, multirun: bool) -> str:
    """The override with its value quoted where Hydra's grammar would read it as something else than it is.

    Under `multirun` commas separate choices; each is looked at by itself.
    """
    found = _OVERRIDE.fullmatch(override)
    if not found:
        return override
    key, value = found["key"], found["value"]
    parsed = _parsed(override)
    if multirun:
        if parsed is not None and parsed.is_sweep_override():
            return override
        if parsed is None and "," in value:
            return f"{key}={','.join(_quoted(key, part) for part in value.split(','))}"
    return f"{key}={_quoted(key, value)}"


def explained(error: Exception, overrides: Sequence[str]) -> RequestError:
    """One line for what Hydra or OmegaConf refused, with the nearest valid name."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        options = [option for option in error.options or [] if option != "schema"]
        if options:
            offered = ", ".join(options)
            return RequestError(f"{group}={choice}: no such {group}{nearest(choice, options)}; there are {offered}")
        return RequestError(f"{group or choice}: no such group{nearest(group or choice, GROUPS)}")
    if isinstance(error, OverrideParseException):
        return RequestError(f"{error.override}: not of the form key=value")
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'(?:\. No match)?", text):
        return _unknown_key(found[1], text, overrides)
    if found := re.search(r"Error merging override (.+)", text):
        return _bad_value(found[1], error.__cause__ or error)
    if found := re.search(r"Could not (?:load|find) '?([^'\n]+)'?", text):
        return RequestError(found[0])
    return RequestError(" ".join(line.strip() for line in text.splitlines() if line.strip())[:300])


def _register() -> None:
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("size", _size, replace=True)
    OmegaConf.register_new_resolver("label", _label, replace=True)


def _size(numerator: int, denominator: int, *, _root_: DictConfig) -> int:
    """A number of pixels in proportion to the backbone's input size."""
    return round(_root_.backbone.input_size * numerator / denominator)


def _label(group: str, *, _root_: DictConfig) -> str:
    """What a group's choice is called in a folder's name: the YAML's name, or the model's where that says more."""
    choice = str(_root_.hydra.runtime.choices[group])
    name = str(_root_[group].get("name", choice)) if group == "backbone" else choice
    return re.sub(r"[^\w.+-]+", "_", choice if choice in name else name)


@contextlib.contextmanager
def _initialized() -> Iterator[None]:
    # A run may be started from inside a Hydra job: put back what was there.
    with hydra.initialize_config_dir(config_dir=str(CONF), version_base="1.3", job_name="tlx"):
        yield


def _compose(typed: list[str]) -> DictConfig:
    try:
        return hydra.compose("config", typed, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a group that is a number
        raise explained(error, typed) from error


def _search_path(config_dir: str | None) -> list[str]:
    if config_dir is None:
        return []
    folder = Path(config_dir).expanduser().resolve()
    if not folder.is_dir():
        raise RequestError(f"--config-dir {config_dir}: no such folder")
    return [f"hydra.searchpath=[{_quote('file://' + str(folder))}]"]


def _parsed(override: str) -> Override | None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return OverridesParser.create().parse_override(override)
    except (HydraException, OmegaConfBaseException):
        return None


def _quoted(key: str, value: str) -> str:
    override = _parsed(f"{key}={value}")
    if override is None or override.is_sweep_override():
        return _quote(value)
    parsed = override.value()
    if isinstance(override._value, QuotedString) or "${" in value or not value:
        return value
    if isinstance(parsed, str):
        return value if parsed == value else _quote(value)
    as_text = _TEXT.fullmatch(key) is not None and parsed is not None
    return _quote(value) if as_text or re.match(r"\w+\(", value) else value


def _quote(value: str) -> str:
    # Hydra's grammar: a backslash only escapes before a quote, or at the end.
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    return "'" + re.sub(r"(\\+)$", lambda found: found[1] * 2, escaped) + "'"


def _unknown_key(key: str, text: str, overrides: Sequence[str]) -> RequestError:
    given = next((o for o in overrides if o.lstrip("+~").startswith(key)), key)
    if found := re.fullmatch(r"\+?(?P<group>\w+)@(?P<package>[\w.]+)=(?P<choice>.*)", given):
        return RequestError(f"{given}: write +{found['group']}@{found['package']}={found['choice']}")
    # The rest of the request decides which keys exist (a strategy's phases, a data set's own).
    others = [o for o in overrides if o != given and "." not in o.split("=")[0]]
    try:
        known = _known_keys(hydra.compose("config", others))
    except (HydraException, OmegaConfBaseException):
        known = _known_keys(hydra.compose("config"))
    if re.match(r"\w+/?\w*=", given) and not set(known) & {key} and key in GROUPS:
        return RequestError(f"{given}: no such choice")
    parent, _, leaf = key.rpartition(".")
    siblings = {name[len(parent) + 1 :].split(".")[0] for name in known if parent and name.startswith(f"{parent}.")}
    close = [f"{parent}.{name}" for name in difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)]
    close = close or sorted((name for name in known if name.rpartition(".")[2] == leaf), key=len)[:1]
    if not siblings:
        close = close or difflib.get_close_matches(key, [*known, *GROUPS], n=1, cutoff=0.7)
    hint = f" (did you mean '{close[0]}'?)" if close else f"; {parent} has {', '.join(sorted(siblings))}" if siblings else ""
    if found := re.match(r"(.*strategy\.phases)\.(\w+)", key):
        phases = sorted({name.split(".")[2] for name in known if name.startswith("strategy.phases.")})
        if found[2] not in phases:
            return RequestError(
                f"{given}: this strategy has no phase {found[2]}{nearest(found[2], phases)}; its phases: {', '.join(phases)}"
            )
    return RequestError(f"{given}: no such key{hint}; `python -m tlx --cfg job` lists them all")


def _known_keys(node: DictConfig) -> list[str]:
    tree = OmegaConf.to_container(node, resolve=False)
    assert isinstance(tree, dict)
    tree.pop("hydra", None)
    keys = [key for key, _ in flat(tree)]  # type: ignore[arg-type]
    phases = {key.split(".")[2] for key in keys if key.startswith("strategy.phases.")}
    every = {f"strategy.phases.{phase}.{name}" for phase in phases for name in Phase.__dataclass_fields__}
    return sorted({*keys, *every})


def _bad_value(override: str, error: BaseException) -> RequestError:
    override = override.strip().rstrip(".")
    key, _, value = override.lstrip("+").partition("=")
    if re.fullmatch(r"(.*)(optimizer|schedule)", key) and ".phases." in key:
        return RequestError(f"{override}: an {key.rpartition('.')[2]} is a group: write +{key.rpartition('.')[2]}@{override}")
    first = str(getattr(error, "msg", None) or error).strip().splitlines()[0]
    return RequestError(f"{override}: {first[0].lower()}{first[1:]}")
