"""A server on this machine alone, in a process of its own: its port, its start, its end."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from types import TracebackType

from tlx.core.errors import RequestError

__all__ = ["HOST", "LocalServer", "ServerError", "port_to_use"]
HOST = "127.0.0.1"
TRIED = 100  # ports after one that is in use
POLL = 0.2  # seconds between two looks at whether it answers
PATIENCE = 10.0  # seconds that it has to end by itself


class ServerError(Exception):
    """The server has not started, or has ended by itself; the message has its last line."""


def port_to_use(requested: int | None, default: int) -> int:
    """The port that was requested (0: any that is free), else the first free one from `default` on.

    Raises:
        RequestError: the requested one is in use or is no port, or none is free.
    """
    if requested is not None and not 0 <= requested <= 65535:
        raise RequestError(f"--port {requested}: must be from 1 to 65535, or 0 for any that is free")
    if requested == 0:
        with socket.socket() as any_free:
            any_free.bind((HOST, 0))
            return int(any_free.getsockname()[1])
    first = default if requested is None else requested
    free = next((port for port in range(first, min(first + TRIED, 65536)) if _is_free(port)), None)
    if free is None:
        raise RequestError(f"--port {first}: it and the next {TRIED} ports are in use; --port 0 takes any that is free")
    if requested is not None and free != requested:
        raise RequestError(f"--port {requested}: is in use; {free} is free, and --port 0 takes any that is free")
    return free


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that has just been closed is free
        try:
            tried.bind((HOST, port))
        except OSError:
            return False
        return True


class LocalServer:
    """The process, from the block's begin to its end; what it prints is shown only where it fails."""

    def __init__(self, words: Sequence[str], port: int, environment: dict[str, str] | None = None) -> None:
        self.address = f"http://{HOST}:{port}"
        self._words, self._environment = words, {**os.environ, **(environment or {})}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)

    def __enter__(self) -> "LocalServer":
        # A session of its own: Ctrl-C is for us, who end it and all that it has started.
        self._process = subprocess.Popen(
            self._words, env=self._environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        self._log.close()

    def wait_until_it_answers(self, path: str) -> None:
        """Returns when `path` of it answers.

        Raises:
            ServerError: it has ended before.
        """
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            if self._process.poll() is not None:
                raise ServerError(f"the server has not started: {self._last_line()}")
            with contextlib.suppress(urllib.error.URLError, OSError), direct.open(f"{self.address}{path}", timeout=5):
                return
            time.sleep(POLL)

    def wait(self) -> None:
        """Waits until it ends, which by itself it does not.

        Raises:
            ServerError: it has ended.
        """
        self._process.wait()
        raise ServerError(f"the server has ended: {self._last_line()}")

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"exit code {self._process.returncode}"
