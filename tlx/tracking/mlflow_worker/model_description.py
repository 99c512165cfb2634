"""What MLflow asks of a model: an `MLmodel` that names its loader, a signature, requirements, an input example.

Part of the process that writes to MLflow: of tlx it imports nothing.
"""

import base64
import json
import struct
import sys
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

NAME = "model"  # the folder of the saved model within the logged one
# What the loader and the model need. All of it is named, because MLflow would load the model to find it out.
PACKAGES = (
    "mlflow",
    "numpy",
    "omegaconf",
    "pandas",
    "pillow",
    "safetensors",
    "simplejpeg",
    "timm",
    "torch",
    "torchvision",
)
OWN = "tlx-transfer"  # named where it is installed, and not merely run from its source


def describe(folder: Path, model_id: str, run_id: str, size: int) -> None:
    """Writes what MLflow asks of a model: `MLmodel` with its signature, requirements and an input example.

    `size`: of the saved model, bytes.
    """
    import yaml
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Map, Schema

    # Any: base64 text and arrays. A tensor's signature would take arrays alone, a column of text no array.
    anything: Any = AnyType  # it is not typed
    takes = Schema([ColSpec(anything(), "image")])
    gives = Schema(
        [
            ColSpec(DataType.string, "prediction"),
            ColSpec(DataType.double, "probability"),
            ColSpec(Map(DataType.double), "probabilities"),
            ColSpec(DataType.string, "error"),
        ]
    )
    python = ".".join(map(str, sys.version_info[:3]))
    example = {"columns": ["image"], "data": [[base64.b64encode(_picture()).decode()]]}
    described = Model(run_id=run_id, model_uuid=model_id, model_id=model_id, signature=ModelSignature(takes, gives))
    described.model_size_bytes = size
    described.saved_input_example_info = {
        "artifact_path": "input_example.json",
        "serving_input_path": "serving_input_example.json",
        "type": "dataframe",
        "pandas_orient": "split",
    }
    described.add_flavor(
        "python_function",
        loader_module="tlx.served",
        data=NAME,
        python_version=python,
        env={"virtualenv": "python_env.yaml"},
    )
    described.save(folder / "MLmodel")
    own = [OWN] if any(metadata.distributions(name=OWN)) else []
    needs = [f"{name}=={metadata.version(name).split('+')[0]}" for name in (*PACKAGES, *own)]  # '+cpu' is no release
    (folder / "requirements.txt").write_text("\n".join(needs) + "\n")
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment))
    (folder / "input_example.json").write_text(json.dumps(example))
    (folder / "serving_input_example.json").write_text(json.dumps({"dataframe_split": example}))


def _picture() -> bytes:
    """A PNG of 32 x 32 pixels: red rises to the right, green downwards."""
    rows = b"".join(b"\0" + bytes(v for x in range(32) for v in (8 * x, 8 * y, 128)) for y in range(32))
    parts = {b"IHDR": struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
    chunks = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
