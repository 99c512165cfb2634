"""`python -m tlx serve RUN`: a saved model as a service on this machine, by MLflow's own server."""

import argparse
import shlex
import sys
import urllib.request
from pathlib import Path

from tlx.cli.run_argument import run_argument, run_folder
from tlx.cli.subcommand import Subcommand
from tlx.core.activity import State, doing
from tlx.core.errors import printable
from tlx.inference.comparison_images import tested_files
from tlx.inference.run_folder import model_folder
from tlx.reporting.text_table import near
from tlx.tracking.local_server import HOST, LocalServer, port_to_use
from tlx.tracking.worker_client import PACKAGE

PORT = 5001
START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tlx.tracking.mlflow_worker.model_server import run; "
    "run(sys.argv[2], int(sys.argv[3]))"
)


def _options(parser: argparse.ArgumentParser) -> None:
    """Adds its arguments."""
    run_argument(parser)
    parser.add_argument(
        "--port", type=int, metavar="N", help=f"port; 0: any free port (default: the first free one from {PORT} on)"
    )


def _main(given: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    return serve(run_folder(given.run, given.output), given.port)


SUBCOMMAND = Subcommand("serve", "serve a saved model on this machine with MLflow's server", _options, _main)


def serve(run: str, port: int | None = None) -> int:
    """Serves the model of a run until Ctrl-C, and returns 0.

    `port`: None for the first free one from 5001 on.

    Raises:
        RequestError: there is no model in the run, or the port is in use.
        ServerError: the model cannot be opened, or the server has ended by itself.
    """
    model = model_folder(run)
    chosen = port_to_use(port, PORT)
    if port is None and chosen != PORT:
        print(f"port {PORT} is in use, so this is {chosen}", file=sys.stderr)
    print(f"opening the model of {near(run)} …", file=sys.stderr, flush=True)
    words = [sys.executable, "-X", "utf8", "-P", "-c", START, str(PACKAGE.parent), str(model), str(chosen)]
    try:
        with LocalServer(words, chosen) as server:
            with doing("starting the server"):
                server.wait_until_it_answers("/ping")
            image = next((file for file in tested_files(model.parent) if file.is_file()), Path("photo.jpg"))
            print(f"serving {near(run)} on {server.address}; a request with an image file:")
            print(curl(server.address, printable(near(image))))
            print("Ctrl-C ends it", flush=True)
            with doing(lambda: State(())):  # what it says stays on the screen
                server.wait()
    except KeyboardInterrupt:
        print("\nthe server has ended", file=sys.stderr)
    return 0


def curl(address: str, image: str) -> str:
    """The command that sends an image file to the server, for a POSIX shell with `curl`."""
    # A proxy would look for 127.0.0.1 on its own machine.
    proxied = "http" in urllib.request.getproxies() and not urllib.request.proxy_bypass(HOST)
    direct = "--noproxy '*' " if proxied else ""
    # Some systems' base64 breaks its lines, and JSON's texts have none. printf is the shell's own: no limit of length.
    text = f"\"$(base64 < {shlex.quote(image)} | tr -d '\\n')\""
    send = f"curl -s {direct}{address}/invocations -H 'Content-Type: application/json' -d @-"
    return f'printf \'{{"inputs": ["%s"]}}\' {text} | {send}'
