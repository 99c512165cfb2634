"""What the packages promise together; who may import whom is import-linter's (`make lint`, in pyproject.toml)."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tlx"

# What takes seconds to import. `--help` and every configuration error take none of it.
HEAVY = {"matplotlib", "mlflow", "timm", "torch", "torchvision"}
# Packages and modules that compute; all others import nothing heavy.
MAY_BE_HEAVY = (
    *(f"tlx.analysis.{name}" for name in ("alignment", "attention", "audit_features", "near_duplicates", "neighbours")),
    "tlx.augmentations",
    "tlx.analysis.out_of_fold",
    *(f"tlx.backbones.{name}" for name in ("factories", "heads", "neighbours_head", "pooled_stages")),
    "tlx.backbones.stage_discovery",
    *(
        f"tlx.backbones.{name}"
        for name in ("call_recording", "memory_layout", "replayed_part", "timm_stages", "traced_stages")
    ),
    *(f"tlx.backbones.{name}" for name in ("staged_network", "state_dicts", "submodules", "weight_loading")),
    *(f"tlx.core.{name}" for name in ("int8_rows", "made_once", "thread_pool", "torch_files")),
    *(f"tlx.datasets.{name}" for name in ("augmentation", "preprocessing", "traced_view")),
    *(f"tlx.distributed.{name}" for name in ("data_parallel",)),
    "tlx.features",
    "tlx.losses",
    *(f"tlx.recommendation.{name}" for name in ("probes", "trials")),
    *(
        f"tlx.inference.{name}"
        for name in (
            "deployed",
            "embedding",
            "exporters",
            "given_images",
            "label_ranking",
            "mlflow_pyfunc",
            "predictor",
        )
    ),
    *(f"tlx.inference.{name}" for name in ("quantization", "saved_model", "unknown_score")),
    "tlx.datasets.further_views",
    "tlx.pixels",
    "tlx.runs.unknowns",
    "tlx.served",
    *(f"tlx.training.{name}" for name in ("cuda_graphs", "evaluation", "metrics", "optimizers", "phase_plan")),
    *(
        f"tlx.training.{name}"
        for name in (
            "fold_logits",
            "progress",
            "snapshots",
            "solver_context",
            "solvers",
            "train_state",
            "trainer",
        )
    ),
    *(
        f"tlx.training.{name}"
        for name in (
            "averaging",
            "depthwise_precision",
            "head_grid",
            "logistic_regression",
            "mixing",
            "nearest_neighbours",
            "probe_solvers",
            "range_test",
            "weight_ties",
            "weighted_loss",
        )
    ),
)


@dataclass
class Module:
    """A module's source, and what it imports when it is imported."""

    path: Path
    tree: ast.Module
    now: set[str] = field(default_factory=set)


def imported(node: ast.AST) -> Iterator[str]:
    """The absolute names of what a statement imports: modules, and names in them."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: a relative import"
        yield str(node.module)
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module(path: Path) -> Module:
    found = Module(path, ast.parse(path.read_text(encoding="utf-8")))

    def visit(node: ast.AST) -> None:
        found.now.update(imported(node))
        for child in ast.iter_child_nodes(node):
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            if not later and not typing:
                visit(child)

    visit(found.tree)
    return found


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): module(path) for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def with_all_that_it_imports(name: str) -> frozenset[str]:
    """The top-level packages that importing a module imports, as far as our own source says."""
    found, waiting, seen = set[str](), {name}, set[str]()
    while waiting:
        one = waiting.pop()
        seen.add(one)
        parents = {one.rpartition(".")[0]} - {""}
        ours = {other for other in MODULES[one].now | parents if other in MODULES}
        found |= {other.partition(".")[0] for other in MODULES[one].now}
        waiting |= ours - seen
    return frozenset(found)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(MAY_BE_HEAVY)])
def test_what_must_start_fast_imports_nothing_heavy(name: str) -> None:
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
from omegaconf import open_dict
from tlx.cli.main import main
from tlx.config.compose import compose
from tlx.config.validation import checked
node = compose(["backbone=resnet50", "strategy=finetune", "dataset=cifar10"])
with open_dict(node):
    del node["hydra"]
assert checked(node).backbone.name == "resnet50"
for wrong in ("backbone=resnet5O", "sede=3", "training.lr=-1", "strategy.phases.probe.train_from=layer5"):
    assert main([wrong]) == 2
assert main(["--cfg", "job"]) == main(["--help"]) == 0
import tlx.runs.run, tlx.datasets.readers
print(*sorted(name for name in sys.modules if "." not in name))
"""
    assert not set(python(code, tmp_path).splitlines()[-1].split()) & HEAVY
    assert not list(tmp_path.iterdir())


def test_the_process_for_mlflow_starts_without_mlflow() -> None:
    """It imports MLflow while the run prepares, and nothing of tlx but `core` and what reads a run's folder."""
    reads = tuple(
        f"tlx.tracking.{name}"
        for name in ("mlflow_worker", "folder_content", "run_facts", "run_card", "run_parameters")
    )
    for name, found in MODULES.items():
        if name.startswith(reads):
            ours = {one for one in found.now if one in MODULES} - {"tlx.tracking"}
            assert all(one.startswith(("tlx.core.", *reads)) for one in ours), name
            assert not with_all_that_it_imports(name) & HEAVY, name


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_a_module_says_what_it_is_for_and_what_it_offers(name: str) -> None:
    assert ast.get_docstring(MODULES[name].tree)
    opened = importlib.import_module(name)
    offered = list(getattr(opened, "__all__", []))
    assert not [one for one in offered if not hasattr(opened, one)]
    assert len(set(offered)) == len(offered)


@pytest.mark.parametrize("name", ["torchvision", "timm", "small_cnn"])
def test_the_names_of_networks_in_yaml_are_functions(name: str) -> None:
    """A module of that name in the package would be found in the function's place."""
    assert f"tlx.backbones.{name}" not in MODULES
    assert callable(getattr(importlib.import_module("tlx.backbones"), name))


def test_nothing_but_tensors_is_ever_unpickled_from_a_checkpoint() -> None:
    calls = [
        (found.path, node)
        for found in MODULES.values()
        for node in ast.walk(found.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "load_state_dict_from_url")
    ]
    assert calls
    for path, call in calls:
        words = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert words.get("weights_only") == "True", f"{path}:{call.lineno}"


def test_pickle_is_for_official_files_whose_checksum_is_known() -> None:
    users = {
        name
        for name, found in MODULES.items()
        for node in ast.walk(found.tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pickle.load", "pickle.loads", "pickle.Unpickler")
    }
    assert users <= {"tlx.datasets.readers"}


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
    assert PACKAGE / "core" / "errors.py" in files
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


# Written in pieces, too. The standard terms are: module, subcommand, worker thread, requested, said or logged.
FORBIDDEN = ["ro" + "om", "hou" + "se", "ve" + "rb", "la" + "ne", "to" + "ld", "as" + "ked"]
FORBIDDEN_WORD = re.compile(  # in prose and as a part of a name: a_name, aName, A_NAME
    rf"((?<![A-Za-z])(?i:{'|'.join(FORBIDDEN)})|{'|'.join(map(str.title, FORBIDDEN))})(?i:s?)(?![a-z])"
)
SAVED = {("tlx/search/optuna_study.py", FORBIDDEN[-1])}  # an attribute's name in every Optuna study so far


def test_words_are_the_fields_standard_terms() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in project_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word in FORBIDDEN_WORD.finditer(line)
        if (path.relative_to(ROOT).as_posix(), word[0]) not in SAVED
    ]
    assert not found


@pytest.mark.parametrize("word", FORBIDDEN)
def test_a_forbidden_word_would_be_found_and_a_longer_one_is_let_be(word: str) -> None:
    forms = (f"two {word}s", f"a_{word}", f"{word}_b", f"is{word.title()}", f"{word.title()}Name", f"A_{word.upper()}")
    assert all(map(FORBIDDEN_WORD.search, forms))
    assert not any(map(FORBIDDEN_WORD.search, (f"x{word}", f"{word}x", f"{word}ssx")))


FOREIGN = ("torch", "torchvision", "timm", "mlflow", "hydra", "omegaconf", "optuna")


def classes() -> Iterator[tuple[str, str]]:
    """Module and name of every class in the package, those within functions, too."""
    for name, found in MODULES.items():
        yield from ((name, node.name) for node in ast.walk(found.tree) if isinstance(node, ast.ClassDef))


def foreign_names(tree: ast.Module) -> Iterator[str]:
    """The names that a module takes from the libraries, by an import or as an attribute."""
    known = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in FOREIGN:
            yield from (alias.name for alias in node.names)
            known |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names = {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
            known |= {name for name, of in names.items() if of.partition(".")[0] in FOREIGN}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node).partition(".")[0] in known:
            yield node.attr


def test_no_two_classes_have_one_name() -> None:
    where = sorted((name, module) for module, name in classes())
    assert not [(one, other) for one, other in pairwise(where) if one[0] == other[0]]


def test_no_public_class_is_named_like_one_of_a_library() -> None:
    """Of what the code itself takes from the libraries; `Model`, which `tlx.load` returns, is a public name."""
    foreign = {name for found in MODULES.values() for name in foreign_names(found.tree)}
    assert {"Tensor", "MlflowClient"} <= foreign
    assert not [(module, name) for module, name in classes() if name in foreign - {"Model"} and name[0] != "_"]


def test_a_module_has_at_most_three_hundred_lines() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert not {file.name: length for file, length in lengths.items() if length > 300}
