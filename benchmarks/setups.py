"""One server for each store, and the code with which ours, the official class and the plain SDK use it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from airflow_providers_secrets.testing.tls import TlsFront

ROOT: Final = Path(__file__).parent.parent
KEY: Final = "x"
"""The variable that every store has; its value is 1."""


@dataclass
class Setup:
    """A running store.

    :param ours: code that makes our ``backend``.
    :param official: code that makes the official ``backend``.
    :param plain: code that makes ``look_up``, a function without parameters, with the SDK alone.
    :param environment: the environment variables for all of them.
    :param calls: returns how many reads the server has received so far.
    :param outage: a context in which the server only answers that it is overloaded.
    """

    name: str
    ours: str
    official: str
    plain: str
    environment: dict[str, str] = field(default_factory=dict)
    calls: Callable[[], int] = lambda: 0
    outage: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext


def behind_tls(port: int) -> tuple[str, str]:
    """Put TLS in front of *port*; return the address, and a CA bundle with certifi's CAs and the server's own."""
    import certifi

    from tests.support.authority import Authority

    authority = Authority(Path(tempfile.mkdtemp(prefix="tls-")))
    authority.bundle.write_bytes(Path(certifi.where()).read_bytes() + authority.cert_pem.bytes())
    front = TlsFront(authority.issue("127.0.0.1"), port)
    return f"https://127.0.0.1:{front.ports[0]}", str(authority.bundle)


def aws(service: str, *, encrypted: bool = False) -> Setup:
    from tests.rigs.aws import CREDENTIALS, REGION, SecretsManagerRig, SsmRig

    rig = {"ssm": SsmRig, "secretsmanager": SecretsManagerRig}[service]()
    rig.put(rig.path("variables", KEY), "1")
    module, _, name = rig.class_path.rpartition(".")
    official = {"ssm": "systems_manager", "secretsmanager": "secrets_manager"}[service]
    call = {
        "ssm": 'get_parameter(Name="/airflow/variables/x", WithDecryption=True)["Parameter"]["Value"]',
        "secretsmanager": 'get_secret_value(SecretId="airflow/variables/x")["SecretString"]',
    }[service]
    url, bundle = behind_tls(rig.proxy.port) if encrypted else (rig.proxy.url, "")
    return Setup(
        f"{rig.name}-tls" if encrypted else rig.name,
        f"from {module} import {name} as Backend\nbackend = Backend(endpoint_url={url!r})",
        f"from airflow.providers.amazon.aws.secrets.{official} import {name} as Backend\n"
        f"backend = Backend(endpoint_url={url!r})",
        f"def look_up():\n    import boto3\n"
        f"    return boto3.session.Session().client({service!r}, endpoint_url={url!r}).{call}",
        {
            "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
            "AWS_DEFAULT_REGION": REGION,
            **({"AWS_CA_BUNDLE": bundle} if encrypted else {}),
        },
        calls=lambda: len(rig.calls),
        outage=lambda: rig.fault("server-error"),
    )


def vault(*, encrypted: bool = False) -> Setup:
    """Return Vault, over HTTP as in the tests, or over TLS as users have it."""
    from tests.rigs.vault import VaultRig

    rig = VaultRig()
    rig.put(rig.path("variables", KEY), "1")
    options = rig.options()
    environment = {}
    if encrypted:
        options["url"], environment["REQUESTS_CA_BUNDLE"] = behind_tls(rig.proxy.port)
    return Setup(
        f"{rig.name}-tls" if encrypted else rig.name,
        "from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend\n"
        f"backend = VaultBackend(**{options!r})",
        f"from airflow.providers.hashicorp.secrets.vault import VaultBackend\nbackend = VaultBackend(**{options!r})",
        "def look_up():\n"
        "    import hvac\n"
        f"    client = hvac.Client(url={options['url']!r})\n"
        f"    client.auth.approle.login(role_id={options['role_id']!r}, secret_id={options['secret_id']!r})\n"
        "    read = client.secrets.kv.v2.read_secret_version\n"
        "    return read(path='variables/x', raise_on_deleted_version=True)['data']['data']['value']",
        environment,
        calls=lambda: len(rig.calls),
        outage=lambda: rig.fault("server-error"),
    )


def azure() -> Setup:
    from tests.rigs.azure import CLIENT, CLIENT_SECRET, TENANT, AzureRig

    rig = AzureRig()
    rig.put(rig.path("variables", KEY), "1")
    options: dict[str, Any] = {
        "vault_url": rig.cloud.VAULT_URL,
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "client_secret": CLIENT_SECRET,
    }
    identity = {name: options[name] for name in ("tenant_id", "client_id", "client_secret")}
    return Setup(
        rig.name,
        "from airflow_providers_secrets.backends.azure_key_vault import AzureKeyVaultBackend\n"
        f"backend = AzureKeyVaultBackend(**{options!r})",
        "from airflow.providers.microsoft.azure.secrets.key_vault import AzureKeyVaultBackend\n"
        f"backend = AzureKeyVaultBackend(**{options!r})",
        "def look_up():\n"
        "    from azure.identity import ClientSecretCredential\n"
        "    from azure.keyvault.secrets import SecretClient\n"
        f"    credential = ClientSecretCredential(**{identity!r})\n"
        f"    client = SecretClient({options['vault_url']!r}, credential)\n"
        "    return client.get_secret('airflow-variables-x').value",
        dict(rig.cloud.environment),
        calls=lambda: len(rig.calls),
        outage=lambda: rig.fault("server-error"),
    )


def google(transport: str) -> Setup:
    from tests.rigs.google import PROJECT, Accounts, GoogleGrpcRig, service_account_key
    from tests.rigs.identities import Internet
    from tests.support.authority import Authority

    rig = GoogleGrpcRig()
    rig.put(rig.path("variables", KEY), "1")
    directory = Path(tempfile.mkdtemp(prefix="google-"))
    accounts = Accounts(rig.server, directory)
    authority = Authority(directory)
    certificate, bundle = authority.issue("*.googleapis.com"), str(authority.bundle)
    for_grpc, for_rest = (Internet(port, certificate) for port in (rig.wire.port, accounts.port))
    for_grpc.tls.set_alpn_protocols(["h2"])
    account = service_account_key()
    return Setup(
        f"google-{transport}",
        "from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend\n"
        f"backend = CloudSecretManagerBackend(gcp_keyfile_dict={account!r}, transport={transport!r})",
        "from airflow.providers.google.cloud.secrets.secret_manager import CloudSecretManagerBackend\n"
        f"backend = CloudSecretManagerBackend(gcp_keyfile_dict={account!r})",
        "def look_up():\n"
        "    from google.cloud.secretmanager_v1 import SecretManagerServiceClient\n"
        "    from google.oauth2 import service_account\n"
        f"    credentials = service_account.Credentials.from_service_account_info({account!r})\n"
        f"    client = SecretManagerServiceClient(credentials=credentials, transport={transport!r})\n"
        f"    name = client.secret_version_path({PROJECT!r}, 'airflow-variables-x', 'latest')\n"
        "    return client.access_secret_version(name=name).payload.data.decode()",
        {
            "grpc_proxy": for_grpc.url,
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,
            "HTTPS_PROXY": for_rest.url,
            "REQUESTS_CA_BUNDLE": bundle,
        },
        calls=lambda: len(rig.calls),
        outage=lambda: rig.fault("server-error"),
    )


SETUPS: Final[Mapping[str, Callable[[], Setup]]] = {
    "ssm": lambda: aws("ssm"),
    "secretsmanager": lambda: aws("secretsmanager"),
    "ssm-tls": lambda: aws("ssm", encrypted=True),
    "vault": vault,
    "vault-tls": lambda: vault(encrypted=True),
    "azure": azure,
    "google-grpc": lambda: google("grpc"),
    "google-rest": lambda: google("rest"),
}


def chosen(names: list[str]) -> Iterator[Setup]:
    """Start the servers of *names*, or all if there are no names, one after the other."""
    for name in names or SETUPS:
        yield SETUPS[name]()
