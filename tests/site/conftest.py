"""The built site, served as a reader's web server would, and a browser to look at it."""

import functools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

SITE = Path(__file__).parents[2] / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
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
    "--enable-logging=stderr",
    # Names other than this machine's do not resolve: a page that needs the network shows itself.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # Scripts run until nothing is left to do, for at most this many milliseconds of the page's own clock.
    "--virtual-time-budget=20000",
)
HUNG = 900  # seconds, after which a browser that no longer moves is ended: a hundred times what a page takes


@dataclass(frozen=True)
class Page:
    """A page as the browser left it: its document after all scripts ran, and what it complained of."""

    dom: str
    console: tuple[str, ...]

    @property
    def errors(self) -> list[str]:
        """Lines that tell of a failure: exceptions, and files of the site that are not there."""
        signs = ("Uncaught", "Failed to load", "Error", "error")
        return [line for line in self.console if any(sign in line for sign in signs)]


@pytest.fixture(scope="session")
def site() -> Path:
    """Folder of the built site."""
    if not (SITE / "book" / "index.html").exists():
        pytest.fail("the site is not built: run make book (make test does it)")
    return SITE


@dataclass(frozen=True)
class Server:
    """A local web server that shows the built site, and the paths it was asked for and does not have."""

    address: str
    missing: list[str]


@pytest.fixture(scope="session")
def server(site: Path) -> Iterator[Server]:
    """The built site on a port of its own."""
    missing: list[str] = []

    class Recorder(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Keeps requests out of the test report."""

        def send_error(self, code: int, *args: Any, **options: Any) -> None:
            if self.path != "/favicon.ico":  # every browser asks for it unasked
                missing.append(self.path)
            super().send_error(code, *args, **options)

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Recorder, directory=str(site))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield Server(f"http://127.0.0.1:{http.server_address[1]}", missing)
        http.shutdown()


@pytest.fixture(scope="session")
def browser() -> str:
    """Path of a Chromium or Chrome."""
    found = os.environ.get("EIGHTBIT_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(
            "no Chromium or Chrome: install one (Debian: apt install chromium) to test the pages in it"
        )
    return found


@pytest.fixture(scope="session")
def visit(browser: str, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Page]:
    """Opens a path of the site, or a data: or file: address, in a fresh browser; extra flags may follow."""

    def open_page(path: str, *flags: str) -> Page:
        server.missing.clear()
        profile = tmp_path_factory.mktemp("profile")
        url = path if path.startswith(("data:", "file:")) else f"{server.address}/{path}"
        command = [browser, *FLAGS, *flags, f"--user-data-dir={profile}", "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HUNG)
        shutil.rmtree(profile, ignore_errors=True)
        assert done.returncode == 0, done.stderr
        lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return Page(done.stdout, (*lines, *(f"Failed to load {path}" for path in server.missing)))

    return open_page
