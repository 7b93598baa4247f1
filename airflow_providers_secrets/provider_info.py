"""What Airflow is told about this provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def get_provider_info() -> dict[str, Any]:
    """Give ``provider.yaml`` as Airflow's provider discovery takes it.

    :return: the keys of Airflow's ``provider_info.schema.json``; what only concerns releases is left out.
    """
    import yaml

    # A wheel carries the file inside the package; in a checkout it stands beside the package.
    path = next(path for path in (_HERE / "provider.yaml", _HERE.parent / "provider.yaml") if path.is_file())
    info: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key: value for key, value in info.items() if key not in ("state", "source-date-epoch", "versions")}
