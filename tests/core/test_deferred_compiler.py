"""torch's compiler is not loaded for commands that compile nothing, and works as ever for those that do."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]


def python(code: str, cwd: Path) -> str:
    """What a new process prints, whose modules no other test has loaded."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=cwd, env=None, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


PREAMBLE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from tlx.core.deferred_compiler import compiler_deferred

def loaded():
    return "torch._dynamo.eval_frame" in sys.modules

"""


def test_a_run_and_a_prediction_do_not_load_the_compiler(tmp_path: Path) -> None:
    """With torchvision's transforms, a timm network, an optimizer, checkpoints and the audit's own solver."""
    code = """
import tlx
size = ["backbone.input_size=32", "backbone.weights=none", "dataset.limit.train=40", "dataset.limit.test=20"]
run = tlx.run(["dataset=shapes", "backbone=timm", "backbone.name=resnet10t", "training.epochs=2", "tracking=none",
               *size])
assert not loaded() and "torchvision" in sys.modules and "timm" in sys.modules
tlx.load(run.folder).predict(["a.png"])
assert not loaded()
import torch._dynamo
assert loaded()
print(run.folder)
"""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    run = python(PREAMBLE + code, tmp_path).splitlines()[-1]
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
sys.argv = ["tlx", "predict", {run!r}, "a.png"]
from tlx.__main__ import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
Path("modules").write_text(" ".join(sys.modules))
"""
    assert "a.png" in python(code, tmp_path)
    there = set((tmp_path / "modules").read_text().split())
    needless = {"sympy", "matplotlib", "mlflow", "hydra", "pandas", "scipy", "rich", "jinja2", "optuna"}
    needless |= {"torch.fx.experimental.symbolic_shapes", "torch._dynamo.eval_frame", "tlx.cli.audit", "tlx.runs.run"}
    found = needless & there
    assert not found


def test_nothing_stays_replaced(tmp_path: Path) -> None:
    code = """
try:
    with compiler_deferred():
        raise ImportError
except ImportError:
    assert "torch._dynamo" not in sys.modules and "torch._dynamo.utils" not in sys.modules
disable, modules = torch.compiler.disable, set(sys.modules)
with compiler_deferred():
    import torchvision
    import timm
    optimizer = torch.optim.Adam(torch.nn.Linear(2, 2).parameters())
    optimizer.step()
    assert not loaded()
assert torch.compiler.disable is disable
assert not {name for name in set(sys.modules) - modules if name.startswith("torch._dynamo")}
import torch._dynamo
assert torch._dynamo is sys.modules["torch._dynamo"] and hasattr(torch._dynamo, "optimize")
taken = torchvision.ops.roi_align.__globals__["is_compile_supported"]
assert taken("cpu") == torch._dynamo.utils.is_compile_supported("cpu")
"""
    python(PREAMBLE + code, tmp_path)


@pytest.mark.parametrize("within", [True, False], ids=["while it is deferred", "afterwards"])
def test_what_is_compiled_later_is_compiled(within: bool, tmp_path: Path) -> None:
    """And a function that is exempt from compiling stays so: with it the graph is in two pieces, as without tlx."""
    code = f"""
graphs = []

def count(graph, inputs):
    graphs.append(graph)
    return graph.forward

def check():
    torch.testing.assert_close(torch.compile(net, backend=count)(x), net(x))
    assert len(graphs) == 1
    whole, exempt = torch.compile(around, backend=count), torch.compiler.disable(inner)
    torch.testing.assert_close(whole(x), around(x))
    return len(graphs) - 1

def inner(x):
    return x.cos()

with compiler_deferred():
    from torchvision.ops import roi_align
    exempt = torch.compiler.disable(inner)
    net, x = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()), torch.ones(2, 3)

    def around(x):
        return exempt(x.sin()).sin()

    assert not loaded()
    found = check() if {within} else None
found = check() if found is None else found
assert loaded() and found == 2, found
"""
    python(PREAMBLE + code, tmp_path)


@pytest.mark.parametrize(
    "door",
    [
        "from torch._dynamo import config",
        "from torch._dynamo.utils import counters",
    ],
)
def test_another_version_that_needs_more_of_the_compiler_gets_it(door: str, tmp_path: Path) -> None:
    """What the stand-in does not have is the compiler's own."""
    code = f"""
with compiler_deferred():
    {door}
    assert loaded()
import torch._dynamo
assert sys.modules["torch._dynamo"].__file__.endswith("__init__.py")
assert torch._dynamo.config is sys.modules["torch._dynamo.config"]
"""
    python(PREAMBLE + code, tmp_path)


def test_options_of_the_decorator_are_taken() -> None:
    from tlx.core.deferred_compiler import disable

    @disable(recursive=False, reason="as in a library")
    def double(x: torch.Tensor) -> torch.Tensor:
        """Twice x."""
        return 2 * x

    assert double(torch.ones(1)) == 2
    assert double.__doc__ == "Twice x."
