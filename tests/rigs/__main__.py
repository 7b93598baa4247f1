"""Run one rig's server and print the configuration for it: ``python -m tests.rigs NAME``, until Ctrl-C.

For whoever wants to try a store by hand and has no account: docs/start.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shlex
import signal
import sys
import threading

# First: it keeps the rig from all that the environment says of clouds, and takes what it writes away at the end.
from tests.conftest import RIGS, STORES, running
from tests.rigs.aws import AwsRig, moto


def configuration(name: str) -> dict[str, str]:
    """Start the rig *name* and return the environment variables that point Airflow at it."""
    rig = running(RIGS[name])
    options = {**rig.options(), "shared_cache": "file"}
    if isinstance(rig, AwsRig):  # who asks is told by another service
        options["service_config"] = {"sts": {"endpoint_url": "http://{}:{}".format(*moto().get_host_and_port())}}
    return {
        "AIRFLOW__SECRETS__BACKEND": rig.class_path,
        "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(options),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rigs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=STORES)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs at the end runs then, too
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # moto would log each request
    for variable, value in configuration(parser.parse_args().name).items():
        print(f"export {variable}={shlex.quote(value)}")
    print("# The server runs until Ctrl-C, and holds nothing then.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
