"""Number formats: bf16 where the processor has units for it; where it has none that is said. Both on any machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from torch import fx

import tlx
from bench.machine import formats
from tests.conftest import ROOT
from tests.features.test_frozen_forward import CPU, by_modules, is_recorded, stirred
from tlx.cli import predict
from tlx.core import device
from tlx.core.device import EMULATED, bf16_units, emulated, precision_of
from tlx.features.frozen_forward import Forward

LINE = f"runtime.precision=bf16: {EMULATED}; use runtime.precision=auto"
SMALL = ["backbone=small_cnn", "backbone.input_size=16", "dataset.train=4", "dataset.test=2", "training.epochs=1"]


def supports(monkeypatch: pytest.MonkeyPatch, *, onednn: bool, **units: bool) -> None:
    """Within the test the processor can do this, and nothing else."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(device, "cpu_capabilities", lambda: {"avx2": True, **units})


@pytest.mark.parametrize(
    ("onednn", "units", "found"),
    [
        (True, {"amx_bf16": True, "avx512_bf16": True}, "matrix"),
        (True, {"avx512_bf16": True}, "vector"),
        (True, {"neon": True, "bf16": True}, "vector"),
        (True, {"avx512_bw": True}, ""),  # oneDNN takes it, and computes in fp32
        (False, {}, ""),
        (False, {"amx_bf16": True, "avx512_bf16": True}, ""),  # ONEDNN_MAX_CPU_ISA=AVX2
    ],
)
def test_bf16_is_taken_and_measured_only_where_units_compute_it(
    monkeypatch: pytest.MonkeyPatch, onednn: bool, units: dict[str, bool], found: str
) -> None:
    supports(monkeypatch, onednn=onednn, **units)
    assert bf16_units() == found
    assert precision_of("auto", CPU) == ("bf16" if found == "matrix" else "fp32")
    assert precision_of("bf16", CPU) == "bf16"
    assert emulated("bf16", CPU) is not bool(found)
    assert not emulated("fp32", CPU)
    assert list(formats(CPU)) == (["fp32", "bf16"] if found else ["fp32"])


def test_where_onednn_refuses_bf16_the_modules_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(weight: torch.Tensor, *args: Any) -> torch.Tensor:
        if weight.dtype is torch.bfloat16:
            raise RuntimeError(
                "mkldnn_reorder_conv2d_weight: bf16 path needs the cpu support avx_ne_convert or avx512bw"
            )
        return torch.ops.aten.mkldnn_reorder_conv2d_weight(weight, *args)  # type: ignore[no-any-return]

    net, x = stirred(torchvision.models.get_model("resnet18", num_classes=7)), torch.randn(9, 3, 48, 48)
    as_here = Forward(net, "bf16")
    as_here(x)
    assert isinstance(as_here._run, fx.GraphModule) is is_recorded("bf16")
    monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", refuse)
    for precision in ("bf16", "fp32"):
        forward = Forward(net, precision)
        with caplog.at_level("INFO", "tlx"):
            found = forward(x)
        assert isinstance(forward._run, fx.GraphModule) is (precision == "fp32")
        if precision == "bf16":
            assert torch.equal(found, by_modules(net, x, "bf16"))
            assert [r.message for r in caplog.records if r.message.startswith("the frozen part cannot be recorded: ")]


@pytest.mark.parametrize("units", [False, True])
def test_a_format_without_units_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], units: bool
) -> None:
    supports(monkeypatch, onednn=units, avx512_bf16=units)
    common = [f"output={tmp_path}", "tracking=none", *SMALL]
    run = tlx.run([*common, "runtime.precision=bf16"])
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "warning: " in line] == ([] if units else [f"warning: {LINE}"])
    image = tmp_path / "image.png"
    Image.new("RGB", (20, 20)).save(image)
    assert predict.predict(str(run.folder), [str(image)], device="cpu") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "bf16" in line]
    assert len(said) == (not units)
    assert all(line.startswith(f"warning: the model computes in bf16, as it was measured: {EMULATED}") for line in said)
    tlx.run([*common, "runtime.precision=fp32"])
    assert "warning: " not in capsys.readouterr().err


def test_a_processor_without_units_computes_bf16_all_the_same(tmp_path: Path) -> None:
    """A process of its own, whose libraries take this processor for one with AVX2 and no more."""
    code = f"""
import json, torch, tlx
from torch import fx, nn
from bench.machine import formats
from tlx.features.frozen_forward import Forward
from tlx.core.device import bf16_units, precision_of
cpu = torch.device("cpu")
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
runs = {{p: Forward(net, p) for p in ("fp32", "bf16")}}
x = torch.randn(3, 3, 8, 8)
apart = float((runs["bf16"](x) - runs["fp32"](x)).abs().max())
graphs = [p for p, one in runs.items() if isinstance(one._run, fx.GraphModule)]
run = tlx.run([{f'"output={tmp_path}", "tracking=none", "runtime.precision=bf16"'}, *{SMALL}])
print(json.dumps([bf16_units(), precision_of("auto", cpu), list(formats(cpu)), graphs, apart, run.status]))
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    units, auto, measured, graphs, apart, status = json.loads(done.stdout.splitlines()[-1])
    assert (units, auto, measured, graphs, status) == ("", "fp32", ["fp32"], ["fp32"], "finished")
    assert 0 < apart < 0.1
    assert done.stderr.count(LINE) == 1
