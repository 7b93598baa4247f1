"""Cold start on Azure Key Vault: SDK, client, log-in and first answer, in a process that has Airflow loaded.

    python benchmarks/cold_start_azure.py --official PYTHON

PYTHON is the interpreter of an environment with ``apache-airflow-providers-microsoft-azure`` and the same Airflow;
without it the official class is left out. "Plain SDK" is azure-keyvault-secrets with azure-identity. All of them
log in by one application's secret, at the real names of the vault and the authority, behind a proxy on loopback.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.paired import Contender, compare
from tests.rigs.azure import CLIENT, CLIENT_SECRET, TENANT, AzureRig

OURS = """
from airflow_providers_secrets.backends.azure_key_vault import AzureKeyVaultBackend
assert AzureKeyVaultBackend(**{options!r}).get_variable("x") == "1"
"""
OFFICIAL = """
from airflow.providers.microsoft.azure.secrets.key_vault import AzureKeyVaultBackend
assert AzureKeyVaultBackend(**{options!r}).get_variable("x") == "1"
"""
PLAIN = """
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
options = {options!r}
credential = ClientSecretCredential(options.pop("tenant_id"), options.pop("client_id"), options.pop("client_secret"))
assert SecretClient(credential=credential, **options).get_secret("airflow-variables-x").value == "1"
"""
IMPORT = """
import azure.identity
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    rig = AzureRig()
    rig.put(rig.path("variables", "x"), "1")
    environment = {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        **rig.cloud.environment,
    }
    options = {
        "vault_url": rig.cloud.VAULT_URL,
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "client_secret": CLIENT_SECRET,
    }
    contenders = [
        Contender("ours", OURS.format(options=options), environment=environment),
        Contender("plain SDK", PLAIN.format(options=options), environment=environment),
        Contender("(import of identity)", IMPORT, environment=environment),
    ]
    if arguments.official:
        code = OFFICIAL.format(options=options)
        contenders.insert(1, Contender("official class", code, arguments.official, environment))
    compare(f"cold start, {rig.name}", contenders, arguments.runs)


if __name__ == "__main__":
    main()
