"""A store that is not reached: the error names what happened to the connection, and its other end."""

from __future__ import annotations

import datetime as dt
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from airflow_providers_secrets.errors import StoreMisconfigured, StoreUnavailable
from airflow_providers_secrets.lookup.access import store_of
from airflow_providers_secrets.lookup.outcomes import ADVICE
from airflow_providers_secrets.stores.base import (
    CONNECTION_REFUSED,
    CUT_OFF,
    NOT_ANSWERED,
    NOT_RESOLVED,
    NOT_THROUGH_PROXY,
    NOT_VALID_NOW,
    OF_ANOTHER_HOST,
    UNTRUSTED,
)
from airflow_providers_secrets.testing.lookups import stored
from airflow_providers_secrets.testing.proxy import Proxy, Reply
from airflow_providers_secrets.testing.rig import PATIENT, Rig
from airflow_providers_secrets.testing.tls import TlsFront
from tests.rigs.identities import Internet

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


@pytest.mark.parametrize("module", ["ssm", "vault", "azure"])
def test_tls_handshake_that_hangs_is_told(request: pytest.FixtureRequest, module: str) -> None:
    """It ends after connect_timeout; urllib3 calls that a read time-out."""
    rig = request.getfixturevalue(module)
    (name,) = [name for name in ADDRESSES if name in rig.options()]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = failure(rig, **{name: f"https://127.0.0.1:{port}"}, connect_timeout=0.2, read_timeout=30)
    assert error.code == f"{NOT_ANSWERED} (127.0.0.1 port {port})"
    assert "read_timeout" not in error.code
    assert "connect_timeout" in error.advice


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


@pytest.mark.parametrize("store", ["ssm", "vault", "azure"])
def test_a_proxys_login_is_not_shown_even_if_it_is_not_encoded(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """Up to the slash in the password, it looks like a host and a port."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://user.invalid:123/S3cr3t@127.0.0.1:1")
    rig = request.getfixturevalue(store)
    (name,) = [name for name in ADDRESSES if name in rig.options()]
    error = failure(rig, **{name: "https://store.example:8200"})
    assert error.code == NOT_RESOLVED
    assert "user" not in str(error)


@pytest.mark.parametrize(("store", "trusts"), [("ssm", "verify"), ("vault", "verify"), ("azure", "connection_verify")])
@pytest.mark.parametrize(
    ("fault", "said", "known_as"),
    [
        ("expired", "certificate has expired", NOT_VALID_NOW),
        ("elsewhere", "IP address mismatch, certificate is not valid for '127.0.0.1'", OF_ANOTHER_HOST),
        ("unknown", "unable to get local issuer certificate", UNTRUSTED),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told(
    request: pytest.FixtureRequest, tmp_path: Path, store: str, trusts: str, fault: str, said: str, known_as: str
) -> None:
    rig = request.getfixturevalue(store)
    port = served_by(tmp_path, fault, rig.proxy.port)
    (name,) = [name for name in ADDRESSES if name in rig.options()]
    place = {name: f"https://127.0.0.1:{port}", trusts: str(tmp_path / "bundle.pem")}
    with pytest.raises(StoreMisconfigured) as raised:
        rig.backend(**{**PATIENT, **place}).get_variable("found")
    # botocore's error has no connection, and urllib3 compares the names for it.
    end = "" if store == "ssm" else f" (127.0.0.1 port {port})"
    words = "certificate is not valid for this host" if (store, fault) == ("ssm", "elsewhere") else said
    assert raised.value.code == f"{UNTRUSTED}: {words}{end}"
    cures = (type(store_of(rig.backend().config)).advice, ADVICE)
    assert raised.value.advice == next(table[known_as] for table in cures if known_as in table)


@pytest.mark.parametrize(("store", "trusts"), [("ssm", "verify"), ("vault", "verify"), ("azure", "connection_verify")])
def test_what_is_wrong_with_a_certificate_behind_a_proxy_is_told(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, trusts: str
) -> None:
    rig = request.getfixturevalue(store)
    served_by(tmp_path, "unknown", rig.proxy.port)
    internet = Internet(rig.proxy.port, (str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, internet.url)
    (name,) = [name for name in ADDRESSES if name in rig.options()]
    place = {name: "https://store.example:8200", trusts: str(tmp_path / "bundle.pem")}
    with pytest.raises(StoreMisconfigured) as raised:
        rig.backend(**{**PATIENT, **place}).get_variable("found")
    end = "" if store == "ssm" else " (store.example port 8200)"
    assert raised.value.code == f"{UNTRUSTED}: unable to get local issuer certificate{end}"
    internet.stop()


def served_by(directory: Path, fault: str, plain: int) -> int:
    """Serve with TLS, by a certificate that has a fault, and return the port; ``bundle.pem`` is to be trusted."""
    known, unknown = trustme.CA(), trustme.CA()
    known.cert_pem.write_to_path(str(directory / "bundle.pem"))
    yesterday = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    issued = (unknown if fault == "unknown" else known).issue_cert(
        "192.0.2.1" if fault == "elsewhere" else "127.0.0.1",
        not_before=yesterday - dt.timedelta(days=1) if fault == "expired" else None,
        not_after=yesterday if fault == "expired" else None,
    )
    paths = str(directory / "certificate.pem"), str(directory / "key.pem")
    issued.cert_chain_pems[0].write_to_path(paths[0])
    issued.private_key_pem.write_to_path(paths[1])
    return TlsFront(paths, plain).ports[0]
