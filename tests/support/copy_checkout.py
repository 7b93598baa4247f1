"""Copies the checkout without the package's own source: ``copy_checkout.py FROM TO``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        source,
        target,
        ignore=lambda folder, names: {
            name
            for name in names
            if name == "__pycache__"
            or (Path(folder) == source and (name == "airflow_providers_secrets" or name.startswith(".")))
        },
    )
