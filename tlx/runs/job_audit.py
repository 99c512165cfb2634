"""The audit of a run's data; of images that were audited before, what was found then."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import tlx.analysis
from tlx.analysis.finding import Finding, ranked
from tlx.analysis.folder_checks import of_folders
from tlx.analysis.remembered import Arrays, remembered
from tlx.config.schema import Config
from tlx.runs.output_layout import fact_store, output

if TYPE_CHECKING:
    from tlx.runs.prepare import Job


def audit_of_job(job: "Job") -> list[Finding]:
    """What is found in the data of a run, in the sets that it trains on, is chosen and measured by.

    Of images that were audited before nothing is read or computed again: findings are kept beside the features, but for
    those of folders, which are looked through.
    """
    config, data = job.config, job.data
    root, sets = folder(data.source), {"train": data.train, "val": data.val, "test": data.test}
    view = (job.preprocessing.input_size, job.preprocessing.resize, job.preprocessing.crop)

    def made() -> Arrays:
        from tlx.analysis.audit import CHECKS, OF_FOLDERS, numbered
        from tlx.analysis.audit_data import View, audit_data

        images = audit_data(
            sets,
            data.classes,
            fact_store(config),
            skipped=data.skipped,
            root=root,
            view=View(*view),
            memory=memory(config),
            overlap=overlap(config),
        )
        found = numbered(images, [number for number in range(len(CHECKS)) if number != OF_FOLDERS])
        text = json.dumps({"folders": OF_FOLDERS, "found": [[number, one.to_dict()] for number, one in found]})
        return {"json": np.frombuffer(text.encode(), np.uint8)}

    files = "\0".join(file for images in sets.values() for file in images.files).encode("utf-8", "surrogatepass")
    about = repr((data.skipped, root, view, overlap(config)))
    known = remembered(memory(config), "findings", (data.fingerprint, files, about, _code()), made)
    kept = json.loads(known["json"].tobytes())
    found = [(number, Finding.from_dict(one)) for number, one in kept["found"]]
    if root is not None:
        found += [(kept["folders"], finding) for finding in of_folders(root, [])]
    return ranked(found)


def _code() -> str:
    """A digest of the checks: others may find something else."""
    digest = hashlib.sha256()
    for file in sorted(Path(tlx.analysis.__path__[0]).glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def overlap(config: Config) -> str:
    """Which of the images the backbone's weights have seen, in words; empty where none is known."""
    return config.dataset.pretraining_overlap or "" if config.backbone.weights == "imagenet" else ""


def memory(config: Config) -> Path | None:
    """The folder of what slow checks have found; None where nothing is kept."""
    return output(config) / "features" / "audits" if config.features.store else None


def folder(source: str) -> Path | None:
    """Where the data is from, if that is a folder."""
    return Path(source) if source and Path(source).is_dir() else None
