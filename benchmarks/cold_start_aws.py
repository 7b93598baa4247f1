"""Cold start on AWS: import of the SDK, client and first answer, in a process that has Airflow loaded.

    python benchmarks/cold_start_aws.py --official PYTHON

PYTHON is the interpreter of an environment with ``apache-airflow-providers-amazon`` and the same Airflow;
without it the official class is left out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.paired import Contender, compare
from tests.rigs.aws import CREDENTIALS, REGION, SecretsManagerRig, SsmRig

OURS = """
from {module} import {name} as Backend
assert Backend(endpoint_url={url!r}).get_variable("x") == "1"
"""
OFFICIAL = """
from airflow.providers.amazon.aws.secrets.{official} import {name} as Backend
assert Backend(endpoint_url={url!r}).get_variable("x") == "1"
"""
PLAIN = """
import botocore.session
client = botocore.session.Session().create_client({service!r}, endpoint_url={url!r})
assert {call} == "1"
"""
# What no client on botocore's signer and urllib3 can do without.
SIGNER = """
import botocore.auth, botocore.awsrequest, botocore.credentials, botocore.httpsession
"""
SESSION = """
import botocore.session
"""
CALLS = {
    "ssm": 'client.get_parameter(Name="/airflow/variables/x", WithDecryption=True)["Parameter"]["Value"]',
    "secretsmanager": 'client.get_secret_value(SecretId="airflow/variables/x")["SecretString"]',
}
OFFICIAL_MODULES = {"ssm": "systems_manager", "secretsmanager": "secrets_manager"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    environment = {
        "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": REGION,
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    for rig in (SsmRig(), SecretsManagerRig()):
        rig.put(rig.path("variables", "x"), "1")
        module, _, name = rig.class_path.rpartition(".")
        words = {
            "module": module,
            "name": name,
            "official": OFFICIAL_MODULES[rig.service],
            "service": rig.service,
            "url": rig.proxy.url,
            "call": CALLS[rig.service],
        }
        contenders = [
            Contender("ours", OURS.format(**words), environment=environment),
            Contender("plain botocore client", PLAIN.format(**words), environment=environment),
            Contender("(import of its session)", SESSION, environment=environment),
            Contender("(import of its signer)", SIGNER, environment=environment),
        ]
        if arguments.official:
            official = Contender("official class", OFFICIAL.format(**words), arguments.official, environment)
            contenders.insert(1, official)
        compare(f"cold start, {rig.name}", contenders, arguments.runs)


if __name__ == "__main__":
    main()
