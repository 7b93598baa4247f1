"""What the tests of several stores share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from airflow_providers_secrets.testing.proxy import Proxy
from airflow_providers_secrets.testing.tls import TlsFront
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
    authority = trustme.CA()
    bundle, certificate, key = (tmp_path / f"behind-tls-{name}.pem" for name in ("ca", "certificate", "key"))
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(bundle))
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    with contextlib.ExitStack() as fronts:

        def put_in_front(port: int) -> tuple[str, str]:
            front = TlsFront((str(certificate), str(key)), port)
            fronts.callback(front.stop)
            return f"https://127.0.0.1:{front.ports[0]}", str(bundle)

        yield put_in_front
