"""Where the console script ``airflow-secrets`` starts.

It imports nothing that takes time before it can say what Ctrl-C does: the command's own import takes some 60 ms, in
which a traceback would be all that a user sees of an interrupt.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command of the process's arguments, and return its exit code."""
    try:
        from airflow_providers_secrets.cli import main as command

        return command()
    except KeyboardInterrupt:
        sys.stderr.write("airflow-secrets: interrupted.\n")
        return 130
