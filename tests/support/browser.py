"""Headless Chromium, and who sits before it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.support import needs
from tests.support.api_server import ApiServer

CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT: Final = 120_000
"""Milliseconds that a machine at work on something else needs at most."""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Run the machine's Chromium."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        needs.unmet("Chromium is not installed; run: apt-get install chromium")
    needs.test_module("playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Visitor:
    """A user of Airflow with a browser window of their own, or somebody who is not logged in.

    :ivar said: what the console, errors of scripts and dialogs said.
    """

    def __init__(self, browser: Any, server: ApiServer, user: str | None, directory: Path) -> None:
        self.server = server
        self.said: list[str] = []
        self._received = directory / f"{user}.har"
        self._context = browser.new_context(
            viewport={"width": 1180, "height": 560}, color_scheme="light",
            record_har_path=self._received, record_har_content="embed",
        )  # fmt: skip
        self._context.set_default_timeout(WAIT)
        if user:
            cookie = {
                "name": "_token",
                "value": server.token(user),
                "url": server.url,
                "sameSite": "Lax",
            }  # as Airflow's
            self._context.add_cookies([cookie])
        self.page = self._context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: str) -> Any:
        """Go to a path of Airflow's, and return the page."""
        self.page.goto(f"{self.server.url}/{path}")
        return self.page

    def listed(self, path: str) -> dict[str, list[str]]:
        """Go to a list, and return :meth:`rows`."""
        self.open(f"secrets-page/{path}")
        return self.rows()

    def rows(self, frame: Any = None) -> dict[str, list[str]]:
        """Return the cells of each row of the list, by id, once it has ended: it loads itself again until then."""
        frame = frame or self.page
        frame.locator("#counts:not(:has-text('Still listing'))").wait_for()
        found = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
        return {cells[0]: cells[1:] for cells in frame.locator("main .scroll tbody tr").evaluate_all(found)}

    def shot(self, name: str) -> None:
        """Take the documentation's screenshot *name* where SECRETS_TEST_SCREENSHOTS names a directory."""
        if directory := os.environ.get("SECRETS_TEST_SCREENSHOTS"):
            self.page.screenshot(path=Path(directory) / f"{name}.png")

    def leave(self) -> list[tuple[str, str]]:
        """Close the window, and return the URL and the text of every answer that it was given."""
        self._context.close()
        entries = json.loads(self._received.read_text())["log"]["entries"]
        return [(entry["request"]["url"], _text(entry["response"]["content"])) for entry in entries]


def _text(content: dict[str, str]) -> str:
    text = content.get("text", "")
    return base64.b64decode(text).decode(errors="replace") if content.get("encoding") == "base64" else text
