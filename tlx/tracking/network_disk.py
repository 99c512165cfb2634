"""Whether an SQLite store lies on a disk of another machine, where several processes must not write to it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.core.errors import RequestError

if TYPE_CHECKING:
    from tlx.config.schema import Tracking

# File systems of other machines: SQLite's locks do not hold there (https://sqlite.org/faq.html#q5).
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "fuse.sshfs"}


def fit_for_many(config: "Tracking", output: Path) -> None:
    """Whether several processes can write to the store.

    Raises:
        RequestError: it is an SQLite file on a network file system.
    """
    uri = config.uri or f"sqlite:///{Path(output).absolute() / 'mlflow.db'}"
    if not config.enabled or not uri.startswith("sqlite:///"):
        return
    import psutil

    file = Path(os.path.expanduser(uri.removeprefix("sqlite:///"))).absolute()
    mounted = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    kind = next((mounted[folder] for folder in file.parents if folder in mounted), "")
    if kind in NETWORK:
        raise RequestError(
            f"tracking.uri: '{file}' lies on a network file system ({kind}), where processes that write to one SQLite "
            f"file damage it; use tracking=server tracking.uri=http://HOST:5000, or tracking=none"
        )
