"""A store that is not reached: the error names what happened to the connection, and its other end."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.errors import StoreUnavailable
from airflow_providers_secrets.lookup.outcomes import ADVICE
from airflow_providers_secrets.stores.base import (
    CONNECTION_REFUSED,
    CUT_OFF,
    NOT_ANSWERED,
    NOT_RESOLVED,
    NOT_THROUGH_PROXY,
)
from airflow_providers_secrets.testing.lookups import stored
from airflow_providers_secrets.testing.proxy import Proxy, Reply
from airflow_providers_secrets.testing.rig import PATIENT, Rig

ADDRESSES = ("url", "endpoint_url", "endpoint", "vault_url")
"""The options that hold a store's address."""


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, and at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def at(rig: Rig, host: str, port: int, scratch: Path) -> dict[str, Any]:
    """Return the rig's option that holds its store's address, with another one."""

    def moved(text: str) -> str:
        return re.sub(r"127\.0\.0\.1:\d+", f"{host}:{port}", text)

    options = rig.options()
    if "kubeconfig" in options:
        (scratch / "kubeconfig").write_text(moved(Path(options["kubeconfig"]).read_text()))
        return {"kubeconfig": str(scratch / "kubeconfig")}
    return {name: moved(options[name]) for name in ADDRESSES if name in options}


def failure(rig: Rig, **options: Any) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as raised:
        rig.backend(**{**PATIENT, "max_attempts": 1, **options}).get_variable("found")
    return raised.value


def spoken_by(rig: Rig) -> str:
    return str(rig.options().get("transport", "http"))


def test_closed_port_is_told(rig: Rig, closed_port: int, tmp_path: Path) -> None:
    error = failure(rig, **at(rig, "127.0.0.1", closed_port, tmp_path))
    end = "" if spoken_by(rig) == "grpc" else f" (127.0.0.1 port {closed_port})"
    assert error.code == CONNECTION_REFUSED + end
    assert error.advice == ADVICE[CONNECTION_REFUSED]


def test_host_that_no_dns_knows_is_told(rig: Rig, tmp_path: Path) -> None:
    error = failure(rig, **at(rig, "nowhere.invalid", 9, tmp_path))
    end = "" if spoken_by(rig) == "grpc" else " (nowhere.invalid port 9)"
    assert error.code == NOT_RESOLVED + end
    assert error.advice == ADVICE[NOT_RESOLVED]


def test_connection_that_is_cut_is_told(rig: Rig) -> None:
    stored(rig, "found", "x")
    with rig.fault("reset"):
        assert failure(rig).code.startswith(CUT_OFF)


def test_server_that_does_not_answer_is_told(rig: Rig) -> None:
    if spoken_by(rig) == "grpc":
        pytest.skip("a call of gRPC has a deadline alone")
    stored(rig, "found", "x")
    with rig.fault("hang"):
        error = failure(rig, read_timeout=0.2)
    assert error.code.startswith(f"{NOT_ANSWERED} (127.0.0.1 port ")
    assert error.advice == ADVICE[NOT_ANSWERED]


@pytest.fixture
def refusing_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy, in the environment, that asks for a login."""
    proxy = Proxy()
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy.url)
    try:
        with proxy.fault(Reply(407)):
            yield proxy
    finally:
        proxy.stop()


@pytest.mark.parametrize("module", ["ssm", "vault", "azure"])
def test_proxy_that_refuses_is_told(refusing_proxy: Proxy, request: pytest.FixtureRequest, module: str) -> None:
    rig = request.getfixturevalue(module)
    (name,) = [name for name in ADDRESSES if name in rig.options()]
    error = failure(rig, **{name: "https://store.example:8200"})
    assert refusing_proxy.requests[-1].method == "CONNECT"
    assert error.code == "HTTP 407 from the proxy"
    assert error.advice == ADVICE[NOT_THROUGH_PROXY]
