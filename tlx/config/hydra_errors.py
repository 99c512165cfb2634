"""What Hydra or OmegaConf refuse, in one line with the nearest valid name."""

import contextlib
import difflib
import re
from collections.abc import Sequence
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlx.config import schema as tlx_config
from tlx.config.hydra_launchers import KNOWN, missing
from tlx.config.schema import Phase
from tlx.config.value_types import wrong_type
from tlx.core.errors import RequestError, nearest
from tlx.core.trees import flat

GROUPS = (
    "backbone", "head", "dataset", "augmentation", "strategy",
    "optimizer", "schedule", "loss", "source", "tracking", "launch", "recipe", "experiment",
)  # fmt: skip


def explained(error: Exception, overrides: Sequence[str]) -> RequestError:
    """One line for what Hydra or OmegaConf refused, with the nearest valid name."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        if group == "hydra/launcher" and (absent := missing(choice)):
            return absent
        options = [option for option in error.options or [] if option != "schema"]
        if not options and group in GROUPS:  # of a list of choices Hydra does not say what there is
            options = GlobalHydra.instance().config_loader().get_group_options(group)
        if options:
            offered = ", ".join(options)
            return RequestError(f"{group}={choice}: no such {group}{nearest(choice, options)}; there are {offered}")
        return RequestError(f"{group or choice}: no such group{nearest(group or choice, GROUPS)}")
    if isinstance(error, OverrideParseException):
        return RequestError(f"{error.override}: not of the form key=value")
    text = str(error)
    if found := re.match(r"Multiple values for ([\w/@.]+)\.|force-add of config groups is not supported", text):
        given = next((o for o in overrides if re.match(r"\+", o) and (not found[1] or _named(o, found[1]))), "")
        if given:
            return RequestError(f"{given}: write {given.lstrip('+')}, without the +; the defaults have one already")
    if found := re.match(r"Could not append to config\. An item is already at '([^']+)'", text):
        given = next((o for o in overrides if o.startswith("+") and _named(o, found[1])), f"+{found[1]}=…")
        return RequestError(f"{given}: write {given.lstrip('+')}, without the +; this key is there already")
    if "Config group override must be" in text:
        given = next((o for o in overrides if o.partition("=")[0] in GROUPS and o.endswith("=null")), "a group")
        return RequestError(f"{given}: a group takes the name of a choice; --help lists them")
    if found := re.match(r"In '([^']+)': .*\n?.*Key '(\w+)' not in '(\w+)'", text):
        fields = getattr(tlx_config, found[3]).__dataclass_fields__
        return RequestError(f"{found[1]}.yaml: {found[2]}: no such key{nearest(found[2], fields)}; {', '.join(fields)}")
    if found := re.search(r"Could not override '([^']+)'(?:\. No match)?", text):
        return unknown_key(found[1], text, overrides)
    if found := re.search(r"Error merging override (.+)", text):
        return _bad_value(found[1], error.__cause__ or error)
    if found := re.search(r"Could not (?:load|find) '?([^'\n]+)'?", text):
        return RequestError(found[0])
    return RequestError(" ".join(line.strip() for line in text.splitlines() if line.strip())[:300])


def _named(override: str, key: str) -> bool:
    return override.lstrip("+~").partition("=")[0] == key


def unknown_key(key: str, text: str, overrides: Sequence[str]) -> RequestError:
    given = next((o for o in overrides if o.lstrip("+~").startswith(key)), key)
    if found := re.fullmatch(r"\+?(?P<group>\w+)@(?P<package>[\w.]+)=(?P<choice>.*)", given):
        return RequestError(f"{given}: write +{found['group']}@{found['package']}={found['choice']}")
    if key.startswith("hydra."):
        return _unknown_of_hydra(key, given, overrides)
    # The rest of the request decides which keys exist (a strategy's phases, a data set's own).
    others = [o for o in overrides if o != given and "." not in o.split("=")[0]]
    try:
        node = hydra.compose("config", others, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        node = hydra.compose("config", return_hydra_config=True)
    choices, known = node.hydra.runtime.choices, _known_keys(node)
    if re.match(r"\w+/?\w*=", given) and not set(known) & {key} and key in GROUPS:
        return RequestError(f"{given}: no such choice")
    if key in known and "={" in given:
        return RequestError(f"{given}: {key} has none of these keys; write +{key}.<key>=<value>")
    parent, _, leaf = key.rpartition(".")
    below = {name[len(parent) + 1 :].split(".")[0] for name in known if parent and name.startswith(f"{parent}.")}
    siblings = {name for name in below if not name.startswith("_")}
    group = key.partition(".")[0]
    close = sorted((name for name in known if re.fullmatch(rf"{group}\..*\b{re.escape(leaf)}", name)), key=len)[:1]
    close = close or [f"{parent}.{name}" for name in difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.6)]
    close = close or sorted((name for name in known if name.rpartition(".")[2] == leaf), key=len)[:1]
    if not siblings:
        close = close or difflib.get_close_matches(key, [*known, *GROUPS], n=1, cutoff=0.7)
    hint = f"; {parent} has {', '.join(sorted(siblings))}" if siblings else ""
    hint = f" (did you mean '{close[0]}'?)" if close else hint
    if found := re.match(r"(.*strategy\.phases)\.(\w+)", key):
        phases = sorted({name.split(".")[2] for name in known if name.startswith("strategy.phases.")})
        if found[2] not in phases:
            hint = f"{nearest(found[2], phases)}; its phases: {', '.join(phases)}"
            return RequestError(f"{given}: this strategy has no phase {found[2]}{hint}")
    if group in GROUPS and (having := _choices_with(group, key)):
        lacks = f"{given}: {group}={choices[group]} has no such key"
        if any(o.startswith(f"{group}=") for o in overrides):
            meant = hint if close else ""
            return RequestError(f"{lacks}{meant}; there is one with {group}={' or '.join(having)}")
        also = f" (also with {group}={', '.join(having[1:])})" if len(having) > 1 else ""
        return RequestError(f"{lacks}; write {group}={having[0]} {given.lstrip('+')}{also}")
    return RequestError(f"{given}: no such key{hint}; `python -m tlx --cfg job` lists them all")


def _choices_with(group: str, key: str) -> list[str]:
    """The choices of a group whose YAML has a key, those with the fewest keys first."""
    loader: Any = GlobalHydra.instance().config_loader()
    keys: dict[str, list[str]] = {}
    for choice in loader.get_group_options(group):
        with contextlib.suppress(HydraException, OmegaConfBaseException, yaml.YAMLError):
            loaded = loader.repository.load_config(f"{group}/{choice}").config
            keys[choice] = [f"{group}.{name}" for name, _ in flat(OmegaConf.to_container(loaded, resolve=False))]  # type: ignore[arg-type]
    return sorted((choice for choice in keys if key in keys[choice]), key=lambda choice: (len(keys[choice]), choice))


def _unknown_of_hydra(key: str, given: str, overrides: Sequence[str]) -> RequestError:
    setting = key.removeprefix("hydra.launcher.")
    if setting == key:
        tree = OmegaConf.to_container(hydra.compose("config", return_hydra_config=True).hydra, resolve=False)
        hint = nearest(key, [f"hydra.{name}" for name, _ in flat(tree)])  # type: ignore[arg-type]
        return RequestError(f"{given}: no such key{hint}; `python -m tlx --cfg hydra` lists them all")
    requested = next((o.partition("=")[2] for o in reversed(overrides) if o.startswith("launch=")), "basic")
    settings: dict[str, list[str]] = {}
    for preset in ["basic", *(preset for preset, _, _ in KNOWN.values())]:
        with contextlib.suppress(HydraException, OmegaConfBaseException):  # its package is not installed
            node = hydra.compose("config", [f"launch={preset}"], return_hydra_config=True).hydra.launcher
            settings[preset] = [name for name, _ in flat(OmegaConf.to_container(node, resolve=False))]  # type: ignore[arg-type]
    if setting in settings.get(requested, []) and "={" in given:
        return RequestError(f"{given}: {key} has none of these keys; write +{key}.<key>=<value>")
    having = [f"launch={preset}" for preset, names in settings.items() if preset != requested and setting in names]
    hint = nearest(setting, settings.get(requested, [])) or (f"; with {' or '.join(having)} it has" if having else "")
    return RequestError(f"{key}: launch={requested} has no such setting{hint}")


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
    key = override.lstrip("+").partition("=")[0]
    group = key.rpartition(".")[2]
    if group in ("optimizer", "schedule") and ".phases." in key:
        return RequestError(f"{override}: the {group} is a group: write +{group}@{override}")
    first = str(getattr(error, "msg", None) or error).strip().splitlines()[0]
    if "is not a subclass of" in first:
        return RequestError(f"{override}: {key} holds other keys, as in {key}.<key>=<value>; see --cfg job -p {key}")
    if "is not Optional" in first:
        return RequestError(f"{override}: cannot be null")
    hint = "; several values need -m" if "," in override.partition("=")[2] else ""
    return RequestError(f"{override}: {wrong_type(error) or first[0].lower() + first[1:]}{hint}")
