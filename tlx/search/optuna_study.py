"""A search's memory: an Optuna study in an SQLite file, which processes share and which outlives all of them.

Whose turn it is, is decided under one lock, and a trial's folder has its own: a trial that is RUNNING while nobody
holds its folder was left behind by a process that died, and the next process takes it up where it stands. The sampler
is seeded by the trial's number, so that a search that was killed tries the same values as one that was not.
"""

import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tlx.config.identity import differences
from tlx.core.choose_by import score, shown
from tlx.core.errors import Pruned, RequestError, reason
from tlx.core.folder_lock import alone
from tlx.search import search_space
from tlx.search.search_space import Axis
from tlx.search.trial_report import TrialResult
from tlx.sweeps.sweep_plan import Planned

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

FILE = "study.db"
STARTUP = 5  # trials that must be through before one is pruned
REPEATS = 3  # requests for values that were tried before, until one of those that were not is chosen
OLD = "val_accuracy"  # by what the trials of a study are chosen that does not say it
HOPELESS = 50  # such requests until a space that cannot be counted is taken for exhausted


@dataclass
class SearchTrial:
    """One set of values, and the run that measures it."""

    number: int  # from 1
    planned: Planned
    values: tuple[str, ...]  # one for each axis
    optuna: "optuna.Trial"
    within: ExitStack  # holds its folder


class Study:
    """The study in a folder, made where there is none.

    Args:
        requested: what every trial has in common, dotted names; a study of anything else is refused.
        plan: the job of a point's overrides.
        choose_by: by which figure of the validation images trials are chosen, in a new study; one that is there goes on
            by its own (`choose_by`).

    Raises:
        RequestError: the file holds another search, cannot be read, or is of another version of Optuna.
    """

    def __init__(
        self,
        folder: Path,
        axes: Sequence[Axis],
        requested: Mapping[str, Any],
        seed: int,
        plan: Callable[[Sequence[str]], Planned],
        choose_by: str,
    ) -> None:
        import optuna

        self.folder, self.axes, self.seed, self.plan = folder, list(axes), seed, lru_cache(plan)
        self.points = search_space.points(axes)
        self._lock = FileLock(folder / ".study.lock")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        if "?" in str(folder):  # to SQLAlchemy it is the start of options
            raise RequestError(f"{folder}: a study's path cannot have '?' in it; take another place (output=…)")
        with self._lock, self._readable():
            try:
                self._storage = optuna.storages.RDBStorage(
                    f"sqlite:///{folder / FILE}", engine_kwargs={"connect_args": {"timeout": 60}}
                )
            except RuntimeError as error:  # made by another version
                raise self._unusable(error) from error
            self._study = optuna.create_study(
                storage=self._storage,
                study_name="search",
                direction="maximize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
                load_if_exists=True,
            )
            before = self._study.user_attrs.get("asked")
            if before is None:
                self._study.set_user_attr("choose_by", choose_by)
                self._study.set_user_attr("asked", json.dumps(requested))
            self.choose_by: str = self._study.user_attrs.get("choose_by", OLD)
        changed = [] if before is None else differences(json.loads(before), json.loads(json.dumps(requested)))
        # A key that is searched has a say in others, which inherit from it.
        searched = [line for line in changed if line.startswith(tuple(f"{axis.key} was" for axis in axes))]
        if changed:
            raise RequestError(
                f"sweep.name={folder.name}: holds another search: {'; '.join((searched or changed)[:3])}; "
                f"take another name, or remove {folder}"
            )

    def next(self, most: int) -> SearchTrial | None:
        """The next trial to work on; None when `most` are through or being worked on, or no point is left.

        Nobody else works on it until it is settled, or its `within` is closed.
        """
        with self._lock, self._readable():
            while True:
                trials = self._trials()
                running = [(n, frozen) for n, frozen in enumerate(trials, 1) if frozen.state.name == "RUNNING"]
                taken = next((found for n, frozen in running if (found := self._take(n, frozen))), None)
                if taken is not None:
                    return taken
                trials = self._trials()  # one may have proved a repetition
                if sum(frozen.state.name != "FAIL" for frozen in trials) >= most or not self._ask(trials):
                    return None

    def report(self, trial: SearchTrial, rows: Sequence[Mapping[str, Any]], epochs: int) -> None:
        """Reports the epochs so far, of `epochs` in all.

        Raises:
            Pruned: its best epoch is worse than that of half of the finished trials by this epoch (median rule of
                Golovin et al. 2017, Google Vizier). Never in its first quarter, in which a network may still be finding
                its feet, nor after its last epoch.
        """
        with self._readable():
            known = self._now(trial).intermediate_values
            for row in rows:
                if row["epoch"] not in known:
                    trial.optuna.report(score(row, self.choose_by), row["epoch"])
            last = rows[-1]
            if epochs // 4 < last["epoch"] < epochs and trial.optuna.should_prune():
                best = max(rows, key=lambda row: score(row, self.choose_by))
                raise Pruned(
                    f"pruned after epoch {last['epoch']} of {epochs}: its best {self.choose_by}, "
                    f"{shown(best[self.choose_by], self.choose_by)}, is in the worse half of the trials before it"
                )

    def settle(self, trial: SearchTrial, status: str, facts: Mapping[str, Any], value: float | None = None) -> None:
        """Writes down what became of the trial, `finished`, `pruned` or `failed`, and lets go of it."""
        from optuna.trial import TrialState

        states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        with self._lock, self._readable():
            if not self._now(trial).state.is_finished():
                trial.optuna.set_user_attr("facts", {**facts, "folder": trial.planned.folder})
                self._study.tell(trial.optuna, value, states[status])
            trial.within.close()

    def found(self) -> list[TrialResult]:
        """Every trial, in their order."""
        names = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed"}
        with self._readable():
            return [
                TrialResult(
                    number,
                    names.get(frozen.state.name, "running"),
                    frozen.value if frozen.state.name == "COMPLETE" else None,
                    self._values(frozen),
                    frozen.user_attrs.get("facts", {}),
                )
                for number, frozen in enumerate(self._trials(), 1)
            ]

    def close(self) -> None:
        """Closes the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _trials(self) -> list["FrozenTrial"]:
        """Those that are more than a second request for the same values."""
        return [
            frozen
            for frozen in self._study.get_trials(deepcopy=False)
            if frozen.state.name != "WAITING" and "repeats" not in frozen.user_attrs
        ]

    def _ask(self, trials: list["FrozenTrial"]) -> bool:
        """Makes a trial; False where every point of the space has one."""
        every = self._study.get_trials(deepcopy=False)
        repeated = len(every) - max((frozen.number + 1 for frozen in trials), default=0)
        if self.points is None:
            if repeated >= HOPELESS:
                return False
        else:
            left = sorted(set(self.points) - {self._values(frozen) for frozen in every})
            if not left:
                return False
            if repeated >= REPEATS or len(left) == 1:
                chosen = random.Random(f"{self.seed} {len(every)}").choice(left)
                pairs = zip(self.axes, chosen, strict=True)
                self._study.enqueue_trial({axis.key: axis.value(text) for axis, text in pairs})
        self._study.ask()  # the next look at all that are running takes it
        return True

    def _take(self, number: int, frozen: "FrozenTrial") -> SearchTrial | None:
        """The running trial; None where somebody works on it, or another has the same values."""
        import optuna

        digest = hashlib.sha256(f"{self.seed} {frozen.number}".encode()).digest()
        self._study.sampler = optuna.samplers.TPESampler(seed=int.from_bytes(digest[:4], "big"))
        trial = optuna.Trial(self._study, frozen._trial_id)
        values = tuple(axis.text(axis.draw(trial)) for axis in self.axes)
        others = [other for other in self._trials() if other.number != frozen.number]
        new = "key" not in trial.user_attrs
        if new and values in {self._values(other) for other in others if "key" not in other.user_attrs}:
            self._repeats(trial)
            return None
        try:
            planned = self.plan(tuple(search_space.typed(self.axes, values)))
        except RequestError as error:  # values that are good one by one, and not together
            trial.set_user_attr("facts", {"error": str(error)})
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        if new and planned.key in {o.user_attrs.get("key") for o in others if o.state.name != "FAIL"}:
            self._repeats(trial)
            return None
        trial.set_user_attr("key", planned.key)
        within = ExitStack()
        try:
            within.enter_context(alone(self.folder / planned.folder))
        except RequestError:  # another process does
            return None
        return SearchTrial(number, planned, values, trial, within)

    def _repeats(self, trial: "optuna.Trial") -> None:
        from optuna.trial import TrialState

        trial.set_user_attr("repeats", True)
        self._study.tell(trial, state=TrialState.FAIL)

    def _values(self, frozen: "FrozenTrial") -> tuple[str, ...]:
        return tuple(axis.text(frozen.params[axis.key]) if axis.key in frozen.params else "" for axis in self.axes)

    def _now(self, trial: SearchTrial) -> "FrozenTrial":
        return self._study.get_trials(deepcopy=False)[trial.optuna.number]

    @contextmanager
    def _readable(self) -> Iterator[None]:
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (StorageInternalError, SQLAlchemyError) as error:
            raise self._unusable(error.__cause__ or error) from error

    def _unusable(self, error: BaseException) -> RequestError:
        return RequestError(f"{self.folder / FILE}: cannot be used ({reason(error)}); take another sweep.name")
