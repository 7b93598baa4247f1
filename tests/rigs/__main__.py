"""Run one rig's server and print the configuration for it: ``python -m tests.rigs NAME``, until Ctrl-C.

For whoever wants to try a store by hand and has no account: docs/start.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from typing import Any

# What a run of the tests leaves would be removed together with every process whose environment names it; here that is
# the Airflow of whoever tries the store.
DIRECTORY = os.environ["SECRETS_TEST_DIRECTORY"] = tempfile.mkdtemp(prefix="airflow-secrets-rig-")

# It keeps the rig from all that the environment says of clouds, and has it write below the directory.
from tests.conftest import RIGS, STORES, running
from tests.rigs.aws import AwsRig, moto_url


def configuration(rig: Any) -> dict[str, str]:
    """Return the environment variables that point Airflow at *rig*."""
    options = {**rig.options(), "shared_cache": "file"}
    if isinstance(rig, AwsRig):  # who asks is told by another service
        options["service_config"] = {"sts": {"endpoint_url": moto_url()}}
    return {
        "AIRFLOW__SECRETS__BACKEND": rig.class_path,
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(options),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rigs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=STORES)
    name = parser.parse_args().name
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # moto would log each request
    with contextlib.suppress(KeyboardInterrupt):
        rig = running(RIGS[name])
        try:
            for variable, value in configuration(rig).items():
                print(f"export {variable}={shlex.quote(value)}")
            print("# The server runs until Ctrl-C, and holds nothing then.", flush=True)
            threading.Event().wait()
        finally:
            rig.stop()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
