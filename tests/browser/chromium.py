"""A headless Chromium that a test drives over a pipe, by the DevTools protocol: no port, no network, no driver."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHROMIUM = "chromium"
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Browser:
    """One tab. Attribute `events` holds whatever the browser told, oldest first."""

    def __init__(self, commands: int, answers: IO[bytes]) -> None:
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._count = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method and wait for its answer."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._count:
                assert "error" not in told, f"{method}: {told['error']}"
                found: dict[str, Any] = told["result"]
                return found
            self.events.append(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = self._answers.read(1 << 16)
            assert data, "the browser has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    def open(
        self, path: Path, width: int = 1280, height: int = 900, *, dark: bool = False, script: bool = True
    ) -> None:
        """Show a file as a window of this size would; forgets the events so far."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What an expression comes to on the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def key(self, key: str, modifiers: int = 0) -> None:
        """Press and release a key; modifiers as the protocol counts them (8 = Shift)."""
        codes = {"Tab": 9, "Escape": 27, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
        params = {"key": key, "code": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": modifiers}
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **params, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **params)

    def picture(self, path: Path, top: int = 0, height: int = 0) -> None:
        """Save what the page looks like as PNG, from `top` on; height 0 = all of it."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"] - top, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])


@contextmanager
def browser(home: Path) -> Iterator[Browser]:
    """Start a browser that keeps its files in this folder, and end it."""
    theirs, commands = os.pipe()
    answers, told = os.pipe()
    # The browser reads from its descriptor 3 and writes to its 4.
    shell = f'exec 3<&{theirs} 4>&{told}; exec "$@"'
    arguments = ["bash", "-c", shell, "bash", CHROMIUM, *_ARGUMENTS, f"--user-data-dir={home}"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            arguments, pass_fds=(theirs, told), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    os.close(theirs)
    os.close(told)
    try:
        with os.fdopen(answers, "rb", buffering=0) as heard:
            yield Browser(commands, heard)
    finally:
        os.close(commands)  # the end of its input is the end of the browser
        process.wait(timeout=30)
