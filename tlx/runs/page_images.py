"""Where a finished run's page gets its images: from their files, or from the data set that the run names."""

from pathlib import Path

from tlx.config.identity import from_tree
from tlx.core.errors import RequestError
from tlx.runs.prepare import found
from tlx.runs.run_files import RunFiles
from tlx.runs.small_pictures import Read, of_files, of_sets


def images_of(run: RunFiles) -> Read:
    """What reads the images of a run. Images without a file, as `test/3`, are drawn or read from the data set again,
    where it is at hand: nothing is downloaded."""
    if run.predicted is None or Path(run.predicted.files[0]).is_file():
        return of_files
    try:
        config = from_tree(dict(run.config))
        config.runtime.offline = True
        parts = found(config)
    except (RequestError, KeyError, TypeError, ValueError, OSError):  # it has moved, or is of another version
        return of_files
    return of_sets(images for images in (parts.train, parts.val, parts.test) if images is not None)
