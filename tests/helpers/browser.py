"""Pages in headless Chromium, driven by Playwright, with a record of what they asked for and complained about."""

from __future__ import annotations

import base64
import functools
import http.server
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loopback import running
from programs import needed
from waiting import PATIENCE

from fbnetv3_zoo.export.web.ort_web import PinnedPackage
from fbnetv3_zoo.export.web.server import page_server

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Playwright

AXE = PinnedPackage(
    "axe-core", "4.14.1", {"axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"}
)
"""The checker of accessibility that runs inside a page."""

FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
_ASK = """async (files) => {
  const { classifier } = await import(new URL("app.js", document.baseURI));
  const network = await classifier;
  const answers = [];
  for (const file of files) {
    const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
    answers.push([...(await network.classify(new Blob([bytes]))).probabilities]);
  }
  return answers;
}"""


def chromium() -> str:
    """Path of Chromium."""
    return needed("chromium", "chromium-browser", "google-chrome")


@contextmanager
def playwright() -> Iterator[Playwright]:
    """What drives browsers; a thread can have one at a time."""
    chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver


@contextmanager
def browser(driver: Playwright, *flags: str) -> Iterator[BrowserContext]:
    """A browser with a fresh profile; ``flags`` are Chromium's."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=chromium(), headless=True, chromium_sandbox=False, args=[*FLAGS, *flags]
        )
        context.set_default_timeout(1000 * PATIENCE)
        try:
            yield context
        finally:
            context.close()


@dataclass
class Visit:
    """A page that was opened, and what it did: requests to other origins, and warnings and errors of any kind."""

    page: Page
    address: str
    elsewhere: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def wait(self, condition: str) -> None:
        """Wait until the JavaScript ``condition`` holds. Playwright's own way is forbidden by the page's policy."""
        ends = time.monotonic() + PATIENCE
        while not self.page.evaluate(condition):
            assert time.monotonic() < ends, f"{condition} did not come true; {self.text('error')} {self.complaints}"
            self.page.wait_for_timeout(20)

    def ready(self) -> None:
        """Wait until the network is loaded."""
        self.wait("document.getElementById('status').textContent.startsWith('Ready')")

    def choose(self, *files: Path) -> None:
        """Choose files as with the button, and wait for the answer."""
        self.page.evaluate("document.getElementById('status').textContent = ''")
        self.page.set_input_files("#file", files)
        self.answered()

    def answered(self) -> None:
        """Wait until an answer is told."""
        self.wait("document.getElementById('status').textContent.startsWith('Most probable')")

    def text(self, name: str) -> str:
        """What the element with the id ``name`` says."""
        return self.page.locator(f"#{name}").text_content() or ""

    def answer(self) -> list[tuple[str, str]]:
        """The classes shown, with their percentages."""
        rows = self.page.locator("#answer li").all()
        return [(row.locator(".name").text_content() or "", row.locator(".share").text_content() or "") for row in rows]


@contextmanager
def visit(context: BrowserContext, address: str) -> Iterator[Visit]:
    """The page at ``address``, opened; requests to other origins are recorded and refused."""
    page = context.new_page()
    seen = Visit(page, address)
    own = urlsplit(address)

    def admit(route: Any) -> None:
        asked = urlsplit(route.request.url)
        if (asked.scheme, asked.netloc) == (own.scheme, own.netloc):
            route.continue_()
        else:
            seen.elsewhere.append(route.request.url)
            route.abort()

    def listen(message: Any) -> None:
        if message.type in ("warning", "error"):
            seen.complaints.append(message.text)

    page.route("**/*", admit)
    page.on("console", listen)
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.goto(address)
    try:
        yield seen
    finally:
        page.close()


def probabilities(page: Page, images: Sequence[Path]) -> list[list[float]]:
    """What the network of an opened page of ours says of image files: for each one probability a class."""
    given = [base64.b64encode(path.read_bytes()).decode() for path in images]
    answers: list[list[float]] = page.evaluate(_ASK, given)
    return answers


def classified_in_browser(driver: Playwright, folder: Path, images: Sequence[Path]) -> list[int]:
    """The most probable class of each image file, by the page in ``folder``, in a browser of its own."""
    with served(folder) as address, browser(driver) as context, visit(context, address) as seen:
        seen.ready()
        answers = probabilities(seen.page, images)
    return [answer.index(max(answer)) for answer in answers]


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The page in ``folder`` as ``fbnetv3 serve-demo`` serves it."""
    server = page_server(folder, port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.stop()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def plainly_served(folder: Path) -> Iterator[str]:
    """``folder`` served as by a server that knows nothing of this project: no headers that allow threads."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
