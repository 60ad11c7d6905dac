"""A Chromium without a window, driven by its DevTools protocol: JSON messages through pipes, a NUL byte after each."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

from waiting import WITHIN_S

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe"),
]
_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "Space": 32}


class Browser:
    """One page. `loud` has what its console and its log said, `requested` the addresses that it asked for."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 800) -> None:
        # The browser reads from descriptor 3 and writes to 4; a shell lays them there.
        shell = ["/bin/sh", "-c", 'exec "$@" 3<&0 4>&1 >&2', "sh"]
        command = [*shell, CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with open(profile.with_suffix(".log"), "w") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._last, self._buffer = 0, b""
        self.loud: list[str] = []
        self.requested: list[str] = []
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def send(self, method: str, **params):
        """The result of a command of the protocol. Raises RuntimeError with the browser's words."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + WITHIN_S
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Gives the page a size in CSS pixels."""
        scale = 2 if phone else 1
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )

    def dark(self, on: bool = True) -> None:
        """Makes the page see a dark desktop."""
        value = "dark" if on else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def open(self, url: str) -> None:
        """Opens an address and waits until it is loaded."""
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str):
        """The value of a script, awaited. Raises RuntimeError if it throws."""
        done = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in done:
            raise RuntimeError(str(done["exceptionDetails"]))
        return done["result"].get("value")

    def wait(self, script: str, seconds: float = WITHIN_S) -> None:
        """Returns when a script gives a true value. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{script} is not true; the page has: {self.run('document.body.innerText')[:2000]}")
            time.sleep(0.02)

    def click(self, selector: str) -> None:
        """Clicks with the mouse in the middle of an element, as far as it is in sight and not under another."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Presses a key; modifiers: 1 Alt, 2 Ctrl, 8 Shift."""
        text = {"Enter": "\r", "Space": " "}.get(key)
        name, code = (" " if key == "Space" else key), _KEYS[key]
        fields = {"key": name, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown", **fields, **({"text": text} if text else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **fields)

    def type(self, text: str) -> None:
        """Writes into the element that has the focus."""
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        """Writes what is seen, or the full length of the page, as a PNG."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Ends the browser."""
        with self._process:  # closes the pipes, at which the browser ends
            self._process.terminate()

    def _next(self, deadline: float):
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            chunk = os.read(self._from, 1 << 16)
            if not chunk:
                raise RuntimeError(f"the browser ended with {self._process.wait(WITHIN_S)}")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(message)
        self._note(event.get("method"), event.get("params"))
        return event

    def _note(self, method, params) -> None:
        if method == "Runtime.consoleAPICalled":
            self.loud.append(f"console: {params['args']}")
        elif method == "Runtime.exceptionThrown":
            self.loud.append(f"exception: {params['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.loud.append(f"log: {params['entry']['text']} {params['entry'].get('url')}")
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
