"""How a backend's methods are called if a subclass, or another package, wrote them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

LookUp = Callable[[str, "str | None"], Any]
"""Return the value of an id for a team, or ``None`` if there is none."""


def overrides(backend: Any, method: str) -> bool:
    """Tell whether *backend* overrides *method*, whichever of Airflow's packages its base class comes from."""
    owner = next((kind for kind in type(backend).__mro__ if method in kind.__dict__), None)
    return owner is not None and not (
        owner.__name__ == "BaseSecretsBackend" and owner.__module__.startswith("airflow.")
    )


def makes_objects(backend: Any) -> bool:
    """Tell whether *backend* makes its connections itself, so that their texts alone do not say what Airflow gets."""
    return overrides(backend, "get_connection") or overrides(backend, "deserialize_connection")


def airflows_call(method: Callable[..., Any], parameter: str) -> LookUp:
    """Return a function that calls *method* as Airflow does: by keyword, with a team if the method takes one."""
    try:
        parameters = inspect.signature(method).parameters.values()
        takes_team = any(one.name == "team_name" or one.kind is one.VAR_KEYWORD for one in parameters)
    except (TypeError, ValueError):  # not written in Python
        takes_team = False

    def call(secret_id: str, team_name: str | None) -> Any:
        if not isinstance(secret_id, str):
            return None
        if takes_team:
            return method(**{parameter: secret_id}, team_name=team_name)
        return method(**{parameter: secret_id})

    return call


def own_call(backend: Any, ours: type, method: str, parameter: str) -> LookUp:
    """Return a function that calls a method of *ours*, as Airflow does if a subclass overrides it."""
    called: LookUp = getattr(backend, method)
    return called if getattr(type(backend), method) is getattr(ours, method) else airflows_call(called, parameter)
