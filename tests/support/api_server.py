"""A real Airflow API server in a subprocess on 127.0.0.1, and who asks it."""

from __future__ import annotations

import contextlib
import html
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final

import httpx

from tests.support.airflow_process import Airflow
from tests.support.ports import free_port

USERS: Final = {"admin": "admin", "op": "op", "viewer": "viewer"}
"""Users of Airflow's simple auth manager, each with its role; the name is the password."""

READY: Final = "Application startup complete"

PATIENCE: Final = 60.0
"""Seconds that a request may take on a machine at work on something else."""


class ApiServer:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.lines: list[str] = []

    def token(self, user: str) -> str:
        answer = httpx.post(f"{self.url}/auth/token", json={"username": user, "password": user}, timeout=PATIENCE)
        token: str = answer.json()["access_token"]
        return token

    def get(self, path: str, user: str | None = "op", **query: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user else {}
        return httpx.get(f"{self.url}/secrets-page/{path}", params=query, headers=headers, timeout=PATIENCE)

    def page(self, path: str, user: str | None = "op", **query: Any) -> httpx.Response:
        """The page as it is once its listing has ended: it asks to be loaded again until then."""
        answer = self.get(path, user, **query)
        while 'http-equiv="refresh"' in answer.text:
            query.pop("fresh", None)
            answer = self.get(path, user, **query)
        return answer

    @property
    def log(self) -> str:
        return "".join(self.lines)


def rows(answer: httpx.Response) -> dict[str, list[str]]:
    """The cells of each row of a list, by id."""
    assert answer.status_code == 200, answer.text
    found = {}
    for row in re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", answer.text, re.DOTALL):
        cells = [html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.split(r"</t[hd]>", row)]
        found[cells[0]] = cells[1:-1]
    return found


@contextlib.contextmanager
def api_server(airflow: Airflow, users: dict[str, str] = USERS) -> Iterator[ApiServer]:
    """Run ``airflow api-server`` until the block ends."""
    passwords = airflow.home / "passwords.json"
    passwords.write_text(json.dumps({user: user for user in users}))
    port = free_port()
    server = ApiServer(port)
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow", "api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
         "--apps", "core"],
        env={
            **airflow.environment,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in users.items()),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__API_AUTH__JWT_ISSUER": "tests",  # Airflow 3.1 beside a recent PyJWT has none
            "AIRFLOW__API_AUTH__JWT_SECRET": "of the tests alone, and as long as SHA-512 wants its keys to be, or more",
        },
        cwd=airflow.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    started = threading.Event()

    def drain() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            server.lines.append(line)
            if READY in line:
                started.set()
        started.set()

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        started.wait(180)
        assert any(READY in line for line in server.lines), server.log
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
        reader.join(30)
