"""MLflow's server of a saved model, in this process: `run(folder, port)`, which `python -m tlx serve` starts.

Nothing is logged or registered for it: the model is described as a logged one is (`model_description.describe`), in a
folder that is removed again, and MLflow opens that. The server is the one that `mlflow models serve` starts.
"""

import os
import sys
import tempfile
import uuid
from pathlib import Path

from tlx.core.errors import said
from tlx.tracking.mlflow_worker.model_description import NAME, describe


def run(folder: str, port: int) -> None:
    """Serves the saved model in `folder` on this machine until a signal ends it."""
    for name, value in {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}.items():
        os.environ.setdefault(name, value)
    try:
        with tempfile.TemporaryDirectory() as described:
            _serve(Path(folder).absolute(), Path(described), port)
    except Exception as error:  # one line: whoever started this process shows the last one
        print(said(error), file=sys.stderr)
        sys.exit(1)


def _serve(model: Path, described: Path, port: int) -> None:
    import uvicorn
    from mlflow.pyfunc import load_model, scoring_server

    describe(described, f"m-{uuid.uuid4().hex}", "", sum(file.stat().st_size for file in model.iterdir()))
    (described / NAME).symlink_to(model)
    application = scoring_server.init(load_model(str(described)))
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning", access_log=False)
