"""A page in a real browser, without a window: what it measures, what keys and clicks do. By the browser's own pipe."""

import base64
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")


class Browser:
    """One page of a browser, controlled by the Chrome DevTools Protocol: JSON texts, each ended by a zero byte."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing, self.rest = reading, writing, b""
        self.number, self.session = 0, ""
        self.events: list[dict[str, Any]] = []  # of the domains that were enabled
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def __call__(self, method: str, **values: Any) -> Any:
        """The result of a command of the protocol."""
        self.number += 1
        command = {"id": self.number, "method": method, "params": values}
        command |= {"sessionId": self.session} if self.session else {}
        os.write(self.writing, json.dumps(command).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, file: Path, width: int, height: int = 900, fragment: str = "") -> None:
        """Opens a file in a window of so many pixels, and waits until it is there."""
        self(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )  # fmt: skip
        self("Page.navigate", url="about:blank")
        self("Page.navigate", url=file.as_uri() + fragment)
        self.until(f"location.href.startsWith({json.dumps(file.as_uri())}) && document.readyState == 'complete'")

    def faults_of(self, file: Path, width: int, scheme: str) -> list[dict[str, Any]]:
        """Opens a file, and what goes wrong with that: errors, words in the console, requests that leave the file.

        `scheme`: light or dark.
        """
        for domain in ("Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        self.events.clear()
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.open(file, width)
        self.decoded()
        own = (f"{file.as_uri()}", "data:", "about:")
        faults = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [
            event
            for event in self.events
            if event.get("method") in faults
            or (
                event.get("method") == "Network.requestWillBeSent"
                and not event["params"]["request"]["url"].startswith(own)
            )
        ]

    def decoded(self) -> list[bool]:
        """Whether each of the page's small pictures is one."""
        self.value("""
            window.decoded = null
            Promise.all([...new Set([...document.querySelectorAll('.i')].map(e =>
                getComputedStyle(e).backgroundImage.slice(5, -2)))].map(src =>
                Object.assign(new Image(), {src}).decode().then(() => true, () => false)))
                .then(found => { window.decoded = found })""")
        self.until("window.decoded !== null")
        found: list[bool] = self.value("window.decoded")
        return found

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str) -> None:
        """Waits until a JavaScript expression is true."""
        while not self.value(expression):
            pass

    def key(self, name: str) -> None:
        """Presses a key: Escape, ArrowLeft, ArrowRight, Tab, Enter."""
        more = {"Tab": {"windowsVirtualKeyCode": 9}, "Enter": {"windowsVirtualKeyCode": 13, "text": "\r"}}.get(name, {})
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=name, code=name, **more)

    def click(self, selector: str) -> None:
        """Clicks on the middle of an element."""
        box = f"document.querySelector('{selector}').getBoundingClientRect()"
        x, y = self.value(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})")
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, file: Path) -> None:
        """What the window shows, as PNG."""
        file.write_bytes(base64.b64decode(self("Page.captureScreenshot")["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = os.read(self.reading, 1 << 16)
            assert more, "the browser has ended"
            self.rest += more
        text, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser while the block lasts; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser is installed ({', '.join(NAMES)})")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        its_in, ours_out = os.pipe()
        ours_in, its_out = os.pipe()
        high = [os.dup2(end, 50 + place, inheritable=False) for place, end in enumerate((its_in, its_out))]
        null = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, *pair) for pair in ((null, 1), (null, 2), (high[0], 3), (high[1], 4))]
        process = os.posix_spawn(
            program, [program, *FLAGS, f"--user-data-dir={profile}"], os.environ, file_actions=actions, setsid=True
        )
        for end in (its_in, its_out, *high, null):
            os.close(end)
        try:
            try:
                page = Browser(ours_in, ours_out)
            except (AssertionError, OSError) as error:
                pytest.skip(f"{program} does not start here ({error})")
            yield page
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(ours_in)
            os.close(ours_out)
