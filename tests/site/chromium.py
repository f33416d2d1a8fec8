"""A headless Chromium that stays open: tabs that load pages, run scripts in them and tell what went wrong.

It is driven over its debugging pipe, one JSON message after another with a zero byte between them, so that no library
is needed and one start serves all pages. Protocol: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    # Names other than this machine's do not resolve: a page that needs the network shows itself.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
SETTLED = """new Promise(done => {
  const drawn = () => [...document.querySelectorAll("pre.mermaid")].every(tag => tag.querySelector("svg"));
  const end = Date.now() + %d;
  const look = async () => {
    if (document.readyState !== "complete" || (!drawn() && Date.now() < end)) return setTimeout(look, 20);
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    requestAnimationFrame(() => done(document.documentElement.outerHTML));
  };
  look();
})"""
PATIENCE = 30_000  # milliseconds for a diagram, a hundred times what one takes


class Chromium:
    """The browser's process; `tab()` opens a tab in it."""

    def __init__(self, path: str, profile: Path) -> None:
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()
        command = [path, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        # The browser reads its third and writes its fourth file, whatever numbers the pipes have here.
        script = f'exec "$@" 3<&{their_in} 4>&{their_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(their_in, their_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(their_in)
        os.close(their_out)
        self._read = b""
        self._count = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that arrive meanwhile are kept in `events`."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            block = os.read(self._in, 1 << 20)
            assert block, "the browser ended"
            self._read += block
        message, self._read = self._read.split(b"\0", 1)
        return json.loads(message)

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """A tab with nothing in it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        yield Tab(self, session)
        self.call("Target.closeTarget", targetId=target)

    def close(self) -> None:
        """End the browser."""
        self.call("Browser.close")
        self._process.wait()
        os.close(self._in)
        os.close(self._out)


class Tab:
    """One page at a time."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send this tab a command."""
        return self._browser.call(method, self._session, **parameters)

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Set the size of the window in CSS pixels and the colours that its user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> str:
        """Load a page; returns its document when all scripts ran and all formulas and diagrams are drawn."""
        self._browser.events.clear()
        self.call("Page.navigate", url=url)
        return self.run(SETTLED % PATIENCE)

    def run(self, script: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def screenshot(self, *, whole: bool = False) -> bytes:
        """The window, or the whole page, as a PNG file."""
        import base64

        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def complaints(self) -> list[str]:
        """Exceptions, errors in the console and files that did not load, since the page was opened."""
        found = []
        for method, event in self._events():
            if method == "Runtime.exceptionThrown":
                details = event["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert"):
                found.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in event["args"]))
            elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
                found.append(f"{event['entry']['text']} {event['entry'].get('url', '')}".strip())
        return found

    def hosts(self) -> set[str]:
        """The hosts that the page asked for anything."""
        urls = [e["request"]["url"] for method, e in self._events() if method == "Network.requestWillBeSent"]
        return {
            urlsplit(url).hostname for url in urls if urlsplit(url).scheme not in ("data", "blob", "file")
        }

    def _events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for event in self._browser.events:
            if event.get("sessionId") == self._session:
                yield event["method"], event["params"]
