"""`python -m tlx audit dataset=…`: what is wrong with the files, images and classes of a data set."""

import argparse
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tlx.cli.subcommand import Subcommand
from tlx.config.dataset_schema import data_name
from tlx.core.activity import doing
from tlx.core.atomic_files import atomic
from tlx.core.errors import RequestError, unicode

if TYPE_CHECKING:
    from tlx.config.schema import Config

log = logging.getLogger("tlx")


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "overrides", nargs="+", metavar="key=value", help="dataset=…, dataset.<key>=…, backbone=… (for the centre crop)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("--html", metavar="FILE", help="write a page with pictures of all findings to FILE.html")
    parser.add_argument(
        "--list", metavar="FILE", help="write the images to leave out to FILE, for dataset.exclude=FILE"
    )
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from tlx.analysis import audit_lines
    from tlx.analysis.audit_page import page
    from tlx.config.compose import compose, without_hydra
    from tlx.config.unread_keys import Typed
    from tlx.config.validation import checked
    from tlx.reporting.log_lines import lines
    from tlx.runs.data_audit import audit_of_data, unread

    if not any(word.startswith(("dataset=", "+dataset=", "experiment=")) for word in given.overrides):
        raise RequestError("dataset: which data? as in dataset=image_folder dataset.root=~/photos")
    for option, ending, target in (("html", ".html", given.html), ("list", "", given.list)):
        if target is not None and (not target.endswith(ending) or Path(os.path.expanduser(target)).is_dir()):
            raise RequestError(
                f"--{option} {target}: must be a file{f' whose name ends in {ending}' if ending else ''}"
            )
    config = checked(without_hydra(compose(given.overrides, given.config_dir)))
    with lines(quiet=True):
        for line in Typed(given.overrides, unread()).warnings():
            log.warning("%s", line)
        data, findings = audit_of_data(config)
        if given.html is not None:
            with doing("writing the page"), atomic(Path(os.path.expanduser(given.html)), "--html FILE") as path:
                path.write_text(unicode(page(data, findings, _called(config))), encoding="utf-8")
    if given.list is not None:
        with atomic(Path(os.path.expanduser(given.list)), "--list FILE") as path:
            path.write_text(audit_lines.exclusions(data, findings), encoding="utf-8", errors="surrogateescape")
    for line in data.notes:
        print(unicode(line), file=sys.stderr)
    if given.json:
        print(unicode(json.dumps([finding.to_dict() for finding in findings], indent=1, ensure_ascii=False)))
    else:
        for line in audit_lines.listed(findings, data.root):
            print(line)
        print(f"{len(data) + len(data.unreadable):,} images: {audit_lines.counted(findings)}")
    for target in (given.html, given.list):
        if target is not None:
            print(f"written: {target}", file=sys.stderr)
    failed = config.dataset.audit == "fail" and any(finding.severity == "error" for finding in findings)
    return 1 if failed else 0


def _called(config: "Config") -> str:
    """What the data set is called."""
    reader = config.dataset.reader
    root = reader.get("root")
    return data_name(str(reader.get("name", "the data")), str(reader["_target_"]), None if root is None else str(root))


SUBCOMMAND = Subcommand("audit", "look for faults in a data set: files, images, classes, copies", _options, _main)
