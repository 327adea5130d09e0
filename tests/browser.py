"""Headless Chromium, driven over the DevTools protocol through a pair of pipes."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Without a window, and without requests of the browser's own."""


class Page:
    """One page of the browser. What it asked the network for, and what it complained of, is kept."""

    def __init__(self, commands: BinaryIO, answers: BufferedReader) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._session, self._rest = 0, "", b""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> Any:
        """A command's answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._hear()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def open(self, address: str, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Open an address in a window of this size, and wait until it has loaded."""
        self.resize(width, height, dark=dark)
        self.send("Page.navigate", url="about:blank")
        if error := self.send("Page.navigate", url=address).get("errorText"):
            raise RuntimeError(f"{address}: {error}")
        while not self.value("document.readyState === 'complete' && location.href !== 'about:blank'"):
            pass

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Change the window."""
        mobile = width < 600
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A screenshot of the window, or of the whole page."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _hear(self) -> Any:
        while b"\0" not in self._rest:
            part = self._answers.read1(1 << 16)
            if not part:
                raise RuntimeError("the browser has ended")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a fresh browser whose files are in `profile`."""
    assert CHROMIUM is not None
    read_to, command_end = os.pipe()
    answer_end, write_back = os.pipe()
    # The browser reads commands from descriptor 3 and answers on 4.
    keeps = f'exec 3<&{read_to} 4>&{write_back}; exec "$@"'
    process = subprocess.Popen(
        ["bash", "-c", keeps, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(read_to, write_back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_to)
    os.close(write_back)
    try:
        with open(command_end, "wb") as commands, open(answer_end, "rb") as answers:
            yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait()
