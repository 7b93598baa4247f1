"""How backends are named: by short names of this package's, and by class paths."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from airflow_providers_secrets.errors import ConfigurationError, did_you_mean, quoted
from airflow_providers_secrets.provider_info import get_provider_info


def short_names() -> dict[str, str]:
    """Return the class paths of this package's backends, by module name."""
    return {path.split(".")[-2]: path for path in get_provider_info()["secrets-backends"]}


def class_path_of(name: str, others: Sequence[str] = ()) -> str:
    """Return the class path that *name* stands for.

    :param others: what else could have been meant.
    :raises ConfigurationError: for an unknown short name, naming the likely one.
    """
    known = short_names()
    if "." in name:
        return name
    if name not in known:
        meant = [*others, *known]
        cure = did_you_mean(name, meant, f"known: {', '.join(meant)}, and any class path.")
        raise ConfigurationError(f"unknown backend {quoted(name)}; {cure}")
    return known[name]


def not_loaded(path: str, error: Exception | None = None) -> str:
    """Return the message about a backend's class that cannot be imported, naming the likely one.

    :param error: why it cannot, if that is known.
    """
    known = short_names()
    # Airflow itself knows no short names.
    likely = [known[path]] if path in known else difflib.get_close_matches(path, known.values(), n=1, cutoff=0.8)
    if likely and likely[0] != path:
        return f"the backend {quoted(path)} cannot be imported; did you mean {likely[0]}?"
    missing = f": there is no module {error.name}" if isinstance(error, ImportError) and error.name else ""
    cure = "Check the class path and that its package is installed."
    return f"the backend {quoted(path)} cannot be imported{missing}. {cure}"
