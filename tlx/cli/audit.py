"""`python -m tlx audit dataset=…`: what is wrong with the files, images and classes of a data set."""

import argparse
import json

from tlx.cli.subcommand import Subcommand
from tlx.core.errors import RequestError, unicode


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "overrides", nargs="+", metavar="key=value", help="dataset=…, dataset.<key>=…, backbone=… (for the centre crop)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument("-cd", "--config-dir", metavar="FOLDER", help="a folder with your own YAML files")


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from tlx.analysis import audit_lines
    from tlx.config.compose import compose, without_hydra
    from tlx.config.validation import checked
    from tlx.runs.data_audit import audit_of_data

    if not any(word.startswith(("dataset=", "+dataset=", "experiment=")) for word in given.overrides):
        raise RequestError("dataset: which data? as in dataset=image_folder dataset.root=~/photos")
    config = checked(without_hydra(compose(given.overrides, given.config_dir)))
    data, findings = audit_of_data(config)
    if given.json:
        print(unicode(json.dumps([finding.to_dict() for finding in findings], indent=1, ensure_ascii=False)))
    else:
        for line in audit_lines.listed(findings, data.root):
            print(line)
        print(f"{len(data) + len(data.unreadable):,} images: {audit_lines.counted(findings)}")
    failed = config.dataset.audit == "fail" and any(finding.severity == "error" for finding in findings)
    return 1 if failed else 0


SUBCOMMAND = Subcommand("audit", "look for faults in a data set: files, images, classes, labels", _options, _main)
