"""What tests of the shared cache have in common: its keys, and backends that use it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from airflow_providers_secrets.lookup import answers
from tests.rigs import Rig

KEY, OTHER_KEY = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2))


def sharing(rig: Rig, place: str, **options: Any) -> Any:
    return rig.caching(**{"shared_cache": place, "shared_cache_key": KEY, **options})


def anew(look_up: Callable[[], Any]) -> Any:
    """Call *look_up* as a process that has just started would."""
    answers.reset_after_fork()
    return look_up()
