"""Cold start on Vault: import of hvac, client, AppRole login and first answer, in a process that has Airflow loaded.

    python benchmarks/cold_start_vault.py --official PYTHON

PYTHON is the interpreter of an environment with ``apache-airflow-providers-hashicorp`` and the same Airflow;
without it the official class is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.paired import Contender, compare
from tests.rigs.vault import VaultRig

OURS = """
from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
assert VaultBackend(**{options!r}).get_variable("x") == "1"
"""
OFFICIAL = """
from airflow.providers.hashicorp.secrets.vault import VaultBackend
assert VaultBackend(**{options!r}).get_variable("x") == "1"
"""
PLAIN = """
import hvac
client = hvac.Client(url={options[url]!r})
client.auth.approle.login(role_id={options[role_id]!r}, secret_id={options[secret_id]!r})
answer = client.secrets.kv.v2.read_secret_version(path="variables/x", raise_on_deleted_version=True)
assert answer["data"]["data"]["value"] == "1"
"""
IMPORT = """
import hvac
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    rig = VaultRig()
    rig.put(rig.path("variables", "x"), "1")
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    options = rig.options()
    contenders = [
        Contender("ours", OURS.format(options=options), environment=environment),
        Contender("plain hvac", PLAIN.format(options=options), environment=environment),
        Contender("(import of hvac)", IMPORT, environment=environment),
    ]
    if arguments.official:
        official = Contender("official class", OFFICIAL.format(options=options), arguments.official, environment)
        contenders.insert(1, official)
    compare(f"cold start, {rig.name}", contenders, arguments.runs)


if __name__ == "__main__":
    main()
