"""The house: which room (module of `tlx`) may use which, read off the source; and what the rooms promise together.

To find one's way: read `MAY_IMPORT` from the top. Data flows downwards; a room uses only rooms that come before it.
"""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tlx"

# Room → the rooms that it may import. `errors` is open to all and is not repeated.
MAY_IMPORT: dict[str, set[str]] = {
    # What everything stands on; each of these could leave the house.
    "errors": set(),  # what a user did wrong, in one line
    "streams": set(),  # output in any encoding
    "cells": set(),  # CSV that a spreadsheet opens as it is
    "clock": set(),  # where a run's time goes
    "schedules": set(),  # learning rates over time; YAML names them, so nobody imports them
    "unpack": set(),  # archives, safely
    "runtime": set(),  # device, number format, threads, memory, seeds, files whole or absent
    "parts": set(),  # one piece of a network as a module
    "registry": set(),  # MLflow's models: logged, registered, compared
    "tracking_store": set(),  # an MLflow store, opened once
    "tracking_load": set(),  # the machine's load, sampled
    "tracking_moved": set(),  # artifacts' addresses follow a store that was moved
    "tracking_run": {"tracking_load", "tracking_store"},  # a run's messages, written in order
    "tracking_process": {  # of its own, started by path
        *("registry", "tracking_load", "tracking_moved", "tracking_run", "tracking_store"),
    },
    "tracking_pipe": set(),  # what leads there
    "tracking_tags": set(),  # who runs what, as MLflow lists it
    "terminal": {"streams"},  # what a terminal is shown beyond lines, by rich
    "choice": set(),  # by which figure of the validation images all is chosen
    "log_lines": set(),  # what is logged, on stderr
    "display": {"choice", "log_lines", "terminal"},  # what a person sees
    "blocks": set(),  # a file of rows, checked
    "store": {"blocks"},  # rows of features on disk, never trusted
    "cache": {"display", "store"},  # the verb: what is kept, and its removal
    # From words to values.
    "levels": set(),  # images of more than 8 bits
    "config": set(),  # the schema, components by name, a run's identity
    "tracking_uri": {"config"},  # where MLflow is, and its password
    "checks": {"tracking_uri", "choice", "config"},  # every value in range, every name known
    "typed": {"config"},  # values as typed, in Hydra's grammar
    "unread": {"checks", "typed"},  # typed values that have no effect
    "hydra_keys": {"typed"},  # Hydra's own keys: those with an effect, those refused
    "launchers": {"runtime", "streams"},  # what Hydra's launchers need around them
    "explained": {"config", "launchers"},  # what Hydra refuses, in one line
    "resolvers": {"config"},  # what the YAML refers to
    "compose": {
        "config",
        "explained",
        "hydra_keys",
        "launchers",
        "resolvers",
        "typed",
    },  # argv and YAML → Config; the only one that knows Hydra
    "planned": {"checks", "compose", "config", "unread"},  # the jobs of a sweep
    "ledger": {"config", "planned", "runtime"},  # a sweep's own file
    "space": {"typed"},  # what a search varies
    # Ranks of one run.
    "ranks": set(),  # which one this is, and what they exchange
    "rank_processes": {"config", "ranks", "runtime"},  # started, and ended together
    # From files to pixels.
    "kinds": set(),  # what is an image, by content
    "remarks": set(),  # what libraries say of an image
    "decoding": {"kinds", "levels", "remarks"},  # bytes → uint8 [H, W, 3]
    "shapes": {"decoding"},  # drawn pictures
    "digests": {"decoding", "levels"},  # files' content by name, hashed once
    "images": {"decoding", "digests", "levels", "runtime"},  # labelled images, decoded on demand
    "copies": {"images"},  # images that are there more than once
    "data": {"images", "config"},  # splits
    "data_range": {"data", "levels"},  # what is black and white in images of more than 8 bits
    "downloads": {"unpack"},  # one file from the network
    "fetch": {"downloads", "unpack"},  # a data set's archive from the network
    "folders": {"images", "kinds", "unpack"},  # image folders
    "split_names": set(),  # the split that a folder's name speaks of
    "split_folders": {"folders", "split_names"},  # which folder is which split
    "class_folders": {"folders", "split_names"},  # folders that are no classes
    "datasets": {
        "class_folders",
        "config",
        "data",
        "fetch",
        "folders",
        "images",
        "shapes",
        "split_folders",
    },  # the readers
    "pixels": {"decoding", "levels", "runtime"},  # evaluation view, random views
    "operations": set(),  # torch's own in another order
    "folding": {"operations"},  # a recorded graph made fast
    "recording": set(),  # a network as a graph
    "forward": {"folding", "recording", "runtime"},  # the frozen part as it runs
    "lanes": set(),  # forward passes side by side
    "rows": {"data", "forward", "lanes", "pixels", "runtime"},  # batches
    # From names to networks.
    "stages": {"parts"},  # a network as named stages
    "discovery": {"parts", "stages"},  # stages found by running the network
    "heads": {"stages"},  # new last layers
    "hub": {"downloads", "unpack"},  # where timm keeps its weights
    "places": {"downloads"},  # a file in a cache, a package, on the network
    "pickle_protocols": set(),  # a pickle of a later protocol in an earlier one
    "torch_files": {"pickle_protocols"},  # what a file of weights holds, nothing of it executed
    "state_dicts": {"torch_files"},  # the state dict in a checkpoint of any script
    "weights": {"downloads", "hub", "places", "state_dicts", "unpack"},  # where weights come from
    "loading": {"config", "stages", "state_dicts", "weights"},  # a file's weights, put into a network
    "backbones": {"config", "discovery", "heads", "hub", "loading", "pixels", "stages", "weights"},
    # Learning.
    "strategy": {"checks", "config"},  # phase → plan: cut, modes, parameter groups
    "kept": {"forward", "rows", "runtime", "store"},  # rows in memory, in files
    "parallel": {"kept", "ranks", "rows", "store"},  # how ranks divide the work
    "intervals": set(),  # of an accuracy
    "evaluate": {"cells", "forward", "intervals", "lanes", "parallel", "ranks", "rows", "runtime"},  # logits, accuracy
    "captured": {"ranks", "runtime"},  # training steps that a GPU repeats
    "features": {"kept", "forward", "lanes", "parallel", "ranks", "rows", "runtime", "store"},  # the frozen prefix
    "solvers": {
        *("captured", "choice", "config", "evaluate", "forward", "parallel", "ranks", "rows", "runtime", "strategy")
    },
    "trainer": {"config", "features", "solvers", "strategy"},  # yields rows; knows no tracker and no display
    "checkpoint": {"config", "runtime", "solvers"},  # where an unfinished run stands, on disk
    # What stays.
    "seen_images": set(),  # the images that a model has learned from, beside it
    "saved": {
        "backbones",
        "config",
        "pixels",
        "runtime",
        "seen_images",
        "stages",
        "unpack",
    },  # the model's folder, never trusted
    "model": {
        "checks",
        "decoding",
        "folders",
        "forward",
        "lanes",
        "levels",
        "pixels",
        "runtime",
        "saved",
        "stages",
    },  # images → answers
    "gallery": {"model"},  # predictions as a page
    "predict": {  # the verb
        "cells",
        *("checks", "decoding", "folders", "gallery", "kinds", "model", "runtime", "streams"),
    },
    "served": {"decoding", "model"},  # the model as MLflow serves it
    "exported": {"backbones", "config", "model", "pixels", "stages", "weights"},  # other formats, opened again
    "inventory": {"checks", "compose", "config"},  # what both lists share
    "weights_inventory": {"config", "hub", "inventory", "places", "weights"},  # the verb `weights`
    "data_inventory": {"config", "data", "datasets", "fetch", "images", "inventory", "unpack"},  # the verb `data`
    "export": {  # the verb
        "cells",
        *("decoding", "exported", "folders", "levels", "model", "pixels", "predict", "runtime", "shapes"),
    },
    "lettering": set(),  # names in a picture's font
    "report": {"choice", "lettering", "runtime"},  # pictures, card
    "tracking": {"config", "tracking_pipe", "tracking_store", "tracking_tags", "tracking_uri"},  # what MLflow is told
    "logged": {"choice", "runtime", "tracking"},  # what MLflow is told of a run, in its words
    "summary": {"runtime"},  # what a run found
    "record": {  # a run's folder
        *("cells", "clock"),
        *("checkpoint", "config", "data", "evaluate", "logged", "model", "report", "runtime", "solvers", "summary"),
        "tracking",
    },
    # Runs side by side.
    "paired": {"intervals", "registry"},  # which of two is better on the same images: tests, intervals, correction
    "finished": {"cells", "choice", "config"},  # a finished run, read from its folder
    "comparison": {"choice", "finished", "intervals", "paired"},  # configurations and pairs of them
    "comparison_text": {"cells", "choice", "comparison", "display", "paired"},  # table, CSV
    "comparison_plot": {"comparison", "lettering", "report"},  # PNG
    "comparison_page": {"comparison", "comparison_text", "decoding", "gallery"},  # HTML
    "compare": {  # the verb
        "ledger",
        *("comparison", "comparison_page", "comparison_plot", "comparison_text", "finished", "paired", "runtime"),
    },
    # One run, and the door.
    "components": {"config", "data", "images", "pixels", "rows", "solvers"},  # what YAML names, made before training
    "build": {  # everything that a configuration names, found and checked
        *(
            "backbones",
            "clock",
            "components",
            "config",
            "data",
            "data_range",
            "decoding",
            "features",
            "images",
            "pixels",
            "ranks",
            "rows",
            "runtime",
            "stages",
            "store",
        ),
        *("strategy", "unread", "weights"),
    },
    "measured_data": {
        "checks",
        "compose",
        "config",
        "data",
        "images",
        "levels",
        "model",
    },  # what `evaluate` measures on
    "measure": {
        *("build", "config", "data", "decoding", "display", "evaluate", "folders", "images", "intervals"),
        *("measured_data", "model", "rows", "runtime", "seen_images"),
    },  # the verb `evaluate`
    "standing": {"build", "checkpoint", "clock", "config", "record"},  # through, interrupted, still what is asked for?
    "saving": {
        "build",
        "config",
        "evaluate",
        "pixels",
        "record",
        "saved",
        "solvers",
        "stages",
    },  # a run's model: tried out, written, however it ends
    "convergence": {"config"},  # whether a run was trained long enough
    "job": {
        "tracking_uri",
        *(
            "backbones",
            "build",
            "checkpoint",
            "clock",
            "config",
            "convergence",
            "copies",
            "display",
            "evaluate",
            "features",
            "log_lines",
            "model",
            "rank_processes",
        ),
        *("ranks", "record", "runtime", "saving", "solvers", "standing", "summary", "tracking", "trainer"),
        "unread",
    },
    "preview": {  # --dry-run
        *("build", "clock", "config", "datasets", "display", "kept", "runtime", "saving", "store", "unread", "weights"),
    },
    "resume": {  # the verb
        *("checkpoint", "config", "display", "job", "ledger", "rank_processes", "runtime", "standing", "tracking_uri"),
    },
    "sweep_summary": {  # what a sweep found, at its end
        *("compare", "comparison", "comparison_page", "comparison_plot", "comparison_text", "display", "runtime"),
        *("standing", "tracking"),
    },
    "sweep": {  # runs that belong together, whatever happens on the way
        "tracking_uri",
        *("build", "checkpoint", "checks", "compose", "config", "data", "display", "job", "launchers"),
        *("ledger", "planned", "rank_processes", "runtime", "standing", "summary", "sweep_summary", "tracking"),
        *("components", "unread"),
    },
    "sync": {  # the verb: what MLflow has not got
        *("checkpoint", "compare", "config", "finished", "ledger", "logged", "report", "runtime"),
        *("log_lines", "sweep_summary", "tracking"),
    },
    "history": {"cells", "choice", "display", "runtime", "space"},  # what a search has found
    "study": {"checkpoint", "choice", "history", "planned", "space"},  # a search's memory
    "search": {  # the verb
        *("build", "choice", "config", "display", "history", "job", "ledger", "planned", "runtime"),
        *("space", "standing", "study", "sweep", "sweep_summary", "tracking", "unread"),
    },
    # Exit codes; its verbs are rooms that it opens by name (`ROOMS`).
    "__main__": {
        "tracking_uri",
        "checks",
        "clock",
        "compose",
        "display",
        "explained",
        "job",
        "log_lines",
        "planned",
        "preview",
        "rank_processes",
        "runtime",
        "streams",
        "summary",
        "sweep",
        "unread",
    },
    "__init__": {"__main__", "model", "summary"},  # tlx.run, tlx.load
}

# What takes seconds to import. `--help` and every configuration error answer before any of it.
HEAVY = {"matplotlib", "mlflow", "timm", "torch", "torchvision"}
MAY_BE_HEAVY = {
    *(
        "backbones",
        "captured",
        "discovery",
        "evaluate",
        "exported",
        "features",
        "folding",
        "forward",
        "heads",
        "kept",
        "lanes",
        "loading",
        "model",
        "operations",
    ),
    *(
        "parallel",
        "parts",
        "pixels",
        "recording",
        "rows",
        "saved",
        "served",
        "solvers",
        "stages",
        "state_dicts",
        "strategy",
        "torch_files",
        "trainer",
    ),
}
MUST_BE_LIGHT = sorted(set(MAY_IMPORT) - MAY_BE_HEAVY)


@dataclass
class Room:
    """A module's source, and what it imports: at once, within functions, and for type checkers only."""

    tree: ast.Module
    now: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    typing: set[str] = field(default_factory=set)

    def rooms(self, *modules: set[str]) -> set[str]:
        """The rooms among `modules`, or among all that are imported."""
        names = set().union(*modules) if modules else self.now | self.later | self.typing
        return {name.split(".")[1] for name in names if name.startswith("tlx.")}

    def packages(self, *modules: set[str]) -> set[str]:
        """The same for top-level packages."""
        return {name.split(".")[0] for name in set().union(*modules)}


def imported(node: ast.AST) -> Iterator[str]:
    """Absolute module names; `from tlx import job` and `from tlx.job import run` are both `tlx.job`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import"
        if node.module == "tlx":  # what is no room is defined in tlx/__init__.py, which everybody has imported
            yield from (f"tlx.{alias.name}" for alias in node.names if alias.name in MAY_IMPORT)
        else:
            yield str(node.module)


def room(path: Path) -> Room:
    found = Room(ast.parse(path.read_text(encoding="utf-8")))

    def visit(node: ast.AST, into: set[str]) -> None:
        into.update(imported(node))
        for child in ast.iter_child_nodes(node):
            inner = into
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and into is found.now:
                inner = found.later
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                inner = found.typing
            visit(child, inner)

    visit(found.tree, found.now)
    return found


HOUSE = {path.stem: room(path) for path in sorted(PACKAGE.glob("*.py"))}


def test_the_plan_names_every_room_and_no_other() -> None:
    assert set(MAY_IMPORT) == set(HOUSE)
    assert set().union(*MAY_IMPORT.values()) < set(HOUSE)
    assert not [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE], "the house is flat"


@pytest.mark.parametrize("name", HOUSE)
def test_a_room_imports_only_what_the_plan_allows_it(name: str) -> None:
    used = HOUSE[name].rooms() - {"errors"}
    assert used <= MAY_IMPORT[name], f"{name} may not use {', '.join(sorted(used - MAY_IMPORT[name]))}"


@pytest.mark.parametrize("name", HOUSE)
def test_the_plan_allows_nothing_that_is_not_used(name: str) -> None:
    used = HOUSE[name].rooms()
    assert used >= MAY_IMPORT[name], f"{name} does not use {', '.join(sorted(MAY_IMPORT[name] - used))}"


def test_the_plan_is_read_from_the_top_and_nothing_goes_round_in_a_circle() -> None:
    seen = {"errors"}
    for name, allowed in MAY_IMPORT.items():
        assert allowed <= seen, f"{name} comes before {', '.join(sorted(allowed - seen))}"
        seen.add(name)
    TopologicalSorter({name: found.rooms() for name, found in HOUSE.items()}).prepare()  # raises CycleError


def test_nobody_comes_in_by_the_door() -> None:
    users = {name for name, found in HOUSE.items() if "__main__" in found.rooms()}
    assert users == {"__init__"}


def test_only_the_room_that_composes_knows_hydra() -> None:
    users = {name for name, found in HOUSE.items() if "hydra" in found.packages(found.now, found.later, found.typing)}
    assert users == {"typed", "space", "compose", "explained"}  # its grammar; all else


def test_the_trainer_and_what_it_uses_know_neither_tracker_nor_display() -> None:
    seen, waiting = set[str](), {"trainer"}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= HOUSE[name].rooms() - seen
    assert not seen & {"compose", "display", "job", "record", "report", "tracking", "tracking_process"}


def with_all_that_it_imports(name: str) -> set[str]:
    """The packages that importing a room imports, as far as our own source says."""
    found = HOUSE[name]
    rooms = found.rooms(found.now)
    return found.packages(found.now).union(*(with_all_that_it_imports(other) for other in rooms))


@pytest.mark.parametrize("name", MUST_BE_LIGHT)
def test_a_room_that_must_answer_fast_imports_nothing_heavy(name: str) -> None:
    assert not with_all_that_it_imports(name) & HEAVY


def python(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_composing_and_refusing_a_configuration_import_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
import tlx.__main__
from omegaconf import open_dict
from tlx.compose import compose
from tlx.checks import checked
node = compose(["backbone=resnet50", "strategy=finetune", "dataset=cifar10"])
with open_dict(node):
    del node["hydra"]
assert checked(node).backbone.name == "resnet50"
for wrong in ("backbone=resnet5O", "sede=3", "training.lr=-1", "strategy.phases.probe.train_from=layer5"):
    assert tlx.__main__.main([wrong]) == 2
assert tlx.__main__.main(["--cfg", "job"]) == tlx.__main__.main(["--help"]) == 0
import tlx.job, tlx.datasets
print(*sorted(name for name in sys.modules if "." not in name))
"""
    assert not set(python(code, tmp_path).splitlines()[-1].split()) & HEAVY
    assert not list(tmp_path.iterdir())


def test_the_process_for_mlflow_runs_without_tlx() -> None:
    """It is started by path, so that it does not depend on where tlx is."""
    for name in ("tracking_load", "tracking_moved", "tracking_process", "tracking_run", "tracking_store", "registry"):
        assert not HOUSE[name].rooms(HOUSE[name].now, HOUSE[name].later)
        assert HOUSE[name].packages(HOUSE[name].now) <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", HOUSE)
def test_a_room_says_what_it_is_for_and_what_it_offers(name: str) -> None:
    assert ast.get_docstring(HOUSE[name].tree)
    module = importlib.import_module("tlx" if name == "__init__" else f"tlx.{name}")
    offered = list(getattr(module, "__all__", []))
    assert not [one for one in offered if not hasattr(module, one)]
    assert len(set(offered)) == len(offered)


def test_nothing_but_tensors_is_ever_unpickled_from_a_checkpoint() -> None:
    calls = [
        (name, node)
        for name, found in HOUSE.items()
        for node in ast.walk(found.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "load_state_dict_from_url")
    ]
    assert calls
    for name, call in calls:
        words = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert words.get("weights_only") == "True", f"tlx/{name}.py:{call.lineno}"


def test_pickle_is_for_official_files_whose_checksum_is_known() -> None:
    users = {
        name
        for name, found in HOUSE.items()
        for node in ast.walk(found.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pickle.load", "pickle.loads", "pickle.Unpickler")
    }
    assert users <= {"datasets"}


def project_files() -> list[Path]:
    """Every text file of the project itself: what git keeps, or all of it where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        files = [ROOT / name for name in listed]
    except (OSError, subprocess.CalledProcessError):
        files = [path for part in ("tlx", "conf", "tests") for path in (ROOT / part).rglob("*")]
        files += [path for path in ROOT.iterdir() if path.is_file()]
    texts = {".py", ".yaml", ".yml", ".toml", ".md", ".txt", ".cfg", ".ini", ".json", ".sh", ""}
    return [path for path in files if path.is_file() and path.suffix in texts and "__pycache__" not in path.parts]


# Written in pieces, so that this file does not hold what it looks for.
PRIVATE = re.compile(
    "|".join(
        [
            r"(?<![\w.~/-])/" + r"(work|opt)(/|\b)(?![\w=@-])",  # folders of one machine
            r"pypi\." + "org",
            "python" + "hosted",
            r"test\." + r"pypi",
            r"(extra-)?index-" + "url",
            r"trusted-" + "host",
            r"download\." + r"pytorch\.org/whl",
        ]
    )
)


def test_no_file_speaks_of_one_machine_or_of_a_package_registry() -> None:
    files = project_files()
    assert PACKAGE / "errors.py" in files
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert not found


@pytest.mark.parametrize(
    "text", ["cd /wor" + "k/main", "'/op" + "t/data'", "--index-" + "url x", "https://pypi." + "org"]
)
def test_what_is_private_would_be_found(text: str) -> None:
    assert PRIVATE.search(text)


@pytest.mark.parametrize("text", ["- /optimizer: adam", "/optimizer@phases.a", "~/opt/photos", "a/opt/b", "./opt/x"])
def test_what_only_looks_private_is_let_be(text: str) -> None:
    assert not PRIVATE.search(text)
