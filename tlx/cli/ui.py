"""`python -m tlx ui`: MLflow's pages on the runs of an output folder, on this machine only."""

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from tlx.cli.run_argument import output_option
from tlx.cli.subcommand import Subcommand
from tlx.config import tracking_uri
from tlx.core.activity import State, doing
from tlx.core.errors import RequestError, shown
from tlx.reporting.text_table import near
from tlx.tracking.local_server import HOST, LocalServer, port_to_use
from tlx.tracking.mlflow_worker.moved_store import follow
from tlx.tracking.mlflow_worker.prepared_views import prepared_views

PORT = 5000


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    parser.add_argument(
        "--port", type=int, metavar="N", help=f"port; 0: any free port (default: the first free one from {PORT} on)"
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address without opening a browser")
    output_option(parser)


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    return ui(given.output, given.port, browser=not given.no_browser)


SUBCOMMAND = Subcommand("ui", "open MLflow's pages for all runs of the output folder", _options, _main)


def ui(output: str, port: int | None = None, *, browser: bool = True) -> int:
    """Shows MLflow's pages until Ctrl-C, and returns 0.

    `port`: None for the first free one from 5000 on. `browser`: open one where there is a screen.

    Raises:
        RequestError: no run has been tracked in the folder, or the port is in use.
        ServerError: MLflow's server has ended by itself.
    """
    database = Path(os.path.expanduser(output)).absolute() / "mlflow.db"
    if not database.is_file():
        elsewhere = os.environ.get(tracking_uri.URI)
        said = f"; {tracking_uri.URI} sends runs to {shown(elsewhere)}" if elsewhere else ""
        raise RequestError(
            f"{near(database)}: no such file, so MLflow has no run of this folder{said}; python -m tlx makes one, "
            "--output FOLDER names another folder"
        )
    chosen = port_to_use(port, PORT)
    if port is None and chosen != PORT:
        print(f"port {PORT} is in use, so this is {chosen}", file=sys.stderr)
    print("starting MLflow …", file=sys.stderr, flush=True)
    if moved := follow(database, (database.parent / "mlartifacts").as_uri()):
        print(f"MLflow: {moved}", file=sys.stderr)
    words = [sys.executable, "-P", "-m", "mlflow", "ui", "--backend-store-uri", f"sqlite:///{database}"]
    words += ["--host", HOST, "--port", str(chosen), "--workers", "1"]
    try:
        with LocalServer(words, chosen, {"MLFLOW_DISABLE_TELEMETRY": "true"}) as server:
            with doing("starting MLflow's server"):
                server.wait_until_it_answers("/health")
                views = {name: server.address + path for name, path in prepared_views(database).items()}
            for name, view in views.items():
                print(f"the runs of {name} with their accuracies: {view}")
            print(f"all of MLflow on {near(database)}: {server.address}")
            print("Ctrl-C ends it", flush=True)
            if browser and _has_screen():
                webbrowser.open(next(iter(views.values()), server.address))
            with doing(lambda: State(())):  # what it says stays on the screen
                server.wait()
    except KeyboardInterrupt:
        print("\nMLflow's pages are closed; the runs stay where they are", file=sys.stderr)
    return 0


def _has_screen() -> bool:
    """Whether a browser would open in a window: not over ssh, and not in place of this terminal."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
