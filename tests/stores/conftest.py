"""What the tests of several stores share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_providers_secrets.testing.proxy import Proxy
from airflow_providers_secrets.testing.tls import TlsFront
from tests.support.authority import Authority
from tests.support.servers import BehindTls


@pytest.fixture
def sts() -> Iterator[Proxy]:
    """STS, that is moto's, behind a proxy of its own."""
    from tests.rigs.aws import moto  # the other stores' tests need no boto3

    proxy = Proxy(moto().get_host_and_port())
    yield proxy
    proxy.stop()


@pytest.fixture
def behind_tls(tmp_path: Path) -> Iterator[BehindTls]:
    """Servers with a certificate that nobody trusts."""
    authority = Authority(tmp_path)
    certificate = authority.issue("127.0.0.1")
    with contextlib.ExitStack() as fronts:

        def put_in_front(port: int) -> tuple[str, str]:
            front = TlsFront(certificate, port)
            fronts.callback(front.stop)
            return f"https://127.0.0.1:{front.ports[0]}", str(authority.bundle)

        yield put_in_front
