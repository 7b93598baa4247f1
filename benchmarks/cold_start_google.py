"""Cold start on Google Secret Manager: SDK, client and first answer, in a process that has Airflow loaded.

    python benchmarks/cold_start_google.py --official PYTHON

PYTHON is the interpreter of an environment with ``apache-airflow-providers-google`` and the same Airflow; without it
the official class is left out. "Plain SDK" is google-cloud-secret-manager. All of them sign with one service account's
key, and speak gRPC, or REST where the label says so, to Google's real names behind an HTTPS proxy on loopback.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import trustme

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.paired import Contender, compare
from tests.rigs.google import PROJECT, Accounts, GoogleGrpcRig, service_account_key
from tests.rigs.identities import Internet

OURS = """
from airflow_providers_secrets.backends.gcp_secret_manager import CloudSecretManagerBackend
assert CloudSecretManagerBackend(gcp_keyfile_dict={key!r}, transport={transport!r}).get_variable("x") == "1"
"""
OFFICIAL = """
from airflow.providers.google.cloud.secrets.secret_manager import CloudSecretManagerBackend
assert CloudSecretManagerBackend(gcp_keyfile_dict={key!r}).get_variable("x") == "1"
"""
PLAIN = """
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.oauth2 import service_account
credentials = service_account.Credentials.from_service_account_info({key!r})
client = SecretManagerServiceClient(credentials=credentials, transport={transport!r})
name = client.secret_version_path({project!r}, "airflow-variables-x", "latest")
assert client.access_secret_version(name=name).payload.data == b"1"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    rig = GoogleGrpcRig()
    rig.put(rig.path("variables", "x"), "1")
    directory = Path(tempfile.mkdtemp(prefix="google-"))
    accounts = Accounts(rig.server, directory)
    authority = trustme.CA()
    issued = authority.issue_cert("*.googleapis.com")
    bundle, certificate, key = (str(directory / name) for name in ("ca.pem", "certificate.pem", "key.pem"))
    authority.cert_pem.write_to_path(bundle)
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    for_grpc, for_rest = (Internet(port, (certificate, key)) for port in (rig.wire.port, accounts.port))
    for_grpc.tls.set_alpn_protocols(["h2"])
    environment = {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "grpc_proxy": for_grpc.url,
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": bundle,
        "HTTPS_PROXY": for_rest.url,
        "REQUESTS_CA_BUNDLE": bundle,
    }

    def contender(label: str, code: str, transport: str = "grpc", python: str = sys.executable) -> Contender:
        code = code.format(key=service_account_key(), transport=transport, project=PROJECT)
        return Contender(label, code, python, environment)

    grpc = contender("ours", OURS)
    rest = contender("ours, REST", OURS, "rest")
    official = [contender("official class", OFFICIAL, python=arguments.official)] if arguments.official else []
    plain, plain_rest = contender("plain SDK", PLAIN), contender("plain SDK, REST", PLAIN, "rest")
    compare("cold start, Google Secret Manager, gRPC", [grpc, *official, plain], arguments.runs)
    compare("cold start, Google Secret Manager, REST", [rest, *official, plain_rest], arguments.runs)


if __name__ == "__main__":
    main()
