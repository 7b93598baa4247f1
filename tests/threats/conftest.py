"""What the suites of threats share: the servers that logins ask, and the figures that a run prints."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_providers_secrets.lookup import access
from airflow_providers_secrets.testing.proxy import Proxy, Reply
from tests.rigs import Rig


class Login(NamedTuple):
    """A way to log in at a server of its own, and how to let that answer something else.

    :ivar options: the backend's options that lead there.
    :ivar fault: let every answer to a login be the given one meanwhile.
    """

    options: dict[str, Any]
    fault: Callable[[Reply], contextlib.AbstractContextManager[None]]


class LoginCommand:
    """A kubeconfig whose command prints the token, or whatever a server would have answered in its place."""

    VERSION = "client.authentication.k8s.io/v1"

    def __init__(self, directory: Path, rig: Any) -> None:
        from tests.rigs.kubernetes import TOKEN

        self._said, self._status, self._waits = (directory / name for name in ("said", "status", "waits"))
        self._works = json.dumps({"apiVersion": self.VERSION, "kind": "ExecCredential", "status": {"token": TOKEN}})
        self._say(self._works.encode(), 0)
        script = directory / "login.sh"
        script.write_text(
            f"#!/bin/sh\nwhile [ -e {self._waits} ]; do sleep 0.1; done\ncat {self._said}\n"
            f"cat {self._said} >&2\nexit $(cat {self._status})\n"
        )
        script.chmod(0o700)
        configuration = rig.configuration(f"https://127.0.0.1:{rig.tls.ports[0]}")
        configuration["users"][0]["user"] = {"exec": {"apiVersion": self.VERSION, "command": str(script)}}
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(configuration))

    def _say(self, octets: bytes, status: int) -> None:
        self._said.write_bytes(octets)
        self._status.write_text(str(status))

    @contextlib.contextmanager
    def fault(self, reply: Reply) -> Iterator[None]:
        if reply.endless:
            pytest.skip("the command is a program of the operator's own: what it prints is not bounded")
        body = reply.body[: len(reply.body) // 2 + 1] if reply.truncate else reply.body
        self._say(body, int(reply.reset or reply.status >= 400))
        if reply.hang or reply.drip:
            self._waits.touch()
        try:
            yield
        finally:
            self._waits.unlink(missing_ok=True)
            self._say(self._works.encode(), 0)


@pytest.fixture
def login(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Login]:
    """How the rig's store is logged in at: STS, Vault itself, Entra, Google's token service, or a kubeconfig's command."""
    with contextlib.ExitStack() as stack:
        if rig.extra == "aws":
            from tests.rigs.aws import moto

            sts = Proxy(moto().get_host_and_port())
            stack.callback(sts.stop)
            options = {
                "role_arn": "arn:aws:iam::123456789012:role/airflow",
                "service_config": {"sts": {"endpoint_url": sts.url}},
            }
            yield Login({**rig.options(), **options}, sts.fault)
        elif rig.extra == "vault":
            from tests.rigs.vault import is_login

            proxy: Proxy = rig.proxy  # type: ignore[attr-defined]
            yield Login(rig.options(), lambda reply: proxy.fault(lambda request: reply if is_login(request) else None))
        elif rig.extra == "azure":
            yield Login(rig.options(), rig.entra.fault)  # type: ignore[attr-defined]
        elif rig.extra == "kubernetes":
            command = LoginCommand(tmp_path, rig)
            yield Login({**rig.options(), "kubeconfig": str(command.kubeconfig)}, command.fault)
        else:
            from tests.rigs.google import PROJECT, Accounts

            monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
            accounts = Accounts(rig.server, tmp_path)  # type: ignore[attr-defined]
            stack.callback(accounts.stop)
            options = {name: value for name, value in rig.options().items() if name != "gcp_keyfile_dict"}
            options |= {"gcp_credential_config_file": accounts.federation(), "project_id": PROJECT}
            yield Login(options, accounts.fault)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[dict[str, int]]:
    """What a test counts; the run prints the sums."""
    counts: dict[str, int] = {}
    yield counts
    for name, count in counts.items():
        record_property(f"tally {name}", count)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(access.StoreAccess, "_pause", lambda *_: 0.0)
