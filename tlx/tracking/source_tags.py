"""Who runs what, as MLflow lists it: the user's name and the commit of the source."""

import getpass
import subprocess
from pathlib import Path


def source() -> dict[str, str]:
    """MLflow's own tags of where a run comes from."""
    tags = {"mlflow.source.name": "tlx", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    if commit := _commit():
        tags["mlflow.source.git.commit"] = commit
    return tags


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have
        return "unknown"


def _commit() -> str | None:
    """The commit of tlx's own source where it runs from a checkout, else of the folder that the run is started in."""
    here = Path(__file__)
    git = ("git", "-c", "core.fsmonitor=false")  # a repository may name a program for it, which git would start
    for folder, file in ((here.parent, here.name), (Path.cwd(), ".")):
        try:
            tracked = subprocess.run(
                [*git, "ls-files", "--error-unmatch", file], cwd=folder, capture_output=True, check=False, timeout=5
            )
            if tracked.returncode == 0:
                head = [*git, "rev-parse", "HEAD"]
                found = subprocess.run(head, cwd=folder, capture_output=True, text=True, check=False, timeout=5)
                if found.returncode == 0:
                    return found.stdout.strip()
        except (OSError, subprocess.TimeoutExpired):  # no git
            return None
    return None
