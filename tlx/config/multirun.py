"""The jobs of a multirun: what the overrides request, one after the other, and Hydra's launchers that start them."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from tlx.config.hydra_errors import explained
from tlx.config.hydra_keys import refuse_typed
from tlx.config.hydra_launchers import Elsewhere, LostJob, collected
from tlx.config.hydra_session import composed, hydra_commands, initialized, search_path
from tlx.config.override_quoting import as_typed, quote
from tlx.core.errors import RequestError


def jobs(overrides: Sequence[str], config_dir: str | None = None) -> list[list[str]]:
    """The overrides of each job of a multirun, every one of them composed and found good."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    refuse_typed(overrides)
    typed = [as_typed(override, multirun=True) for override in overrides]
    with initialized():
        composed(search_path(config_dir))  # now Hydra knows the user's folder, too
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
    """Runs `task` once for each job by Hydra's launcher (`launch`); in their order what it returned, or `LostJob`.

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
    with hydra_commands() as main:
        overrides = [*search_path(config_dir), *typed[0], f"hydra.sweep.dir={quote(str(folder))}"]
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
    return [value if isinstance(value, LostJob) else value.return_value for value in returned]


def job_folder() -> Path:
    """Where the job that runs now, started by Hydra's launcher, has its folder."""
    from hydra.core.hydra_config import HydraConfig

    return Path(HydraConfig.get().runtime.output_dir)


def _plain(override: str) -> str:
    """An override as it was typed: the sweeper has escaped it for Hydra's grammar."""
    parsed = OverridesParser.create().parse_override(override)
    value = parsed._value
    if isinstance(value, QuotedString):
        bare = f"{parsed.get_key_element()}={value.text}"
        return bare if as_typed(bare, multirun=False) == override else override  # the quotes may be the user's own
    return f"{parsed.get_key_element()}={value}" if isinstance(value, str) else override
