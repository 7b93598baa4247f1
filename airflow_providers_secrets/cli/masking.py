"""Which values of a backend's options are not shown, since they may be credentials."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = re.compile(
    r"secret|token|passw|credential|keyfile|jwt|assertion|certificate_data|shared_cache_key|aws_access_key_id",
    re.IGNORECASE,
)
"""Names of options whose values are not shown."""
SHOWN: Final = re.compile(r".*_(prefix|path|pattern|file|method|audience|enabled|ttl)|auth_type|use_.*", re.IGNORECASE)
"""Names of options whose values are shown although :data:`HIDDEN` matches."""

SHOWN_PARAMETERS: Final = frozenset(
    {
        "client_id",
        "client_name",
        "cluster_name",
        "db",
        "password_env",
        "password_file",
        "protocol",
        "region",
        "serverless",
        "service",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_min_version",
        "user",
        "username",
    }
)
"""URL parameters whose values are shown."""


def shown_value(name: str, value: Any) -> str:
    """Return an option's value for display, masking what may be a credential."""
    if value is None:
        return "null"
    if HIDDEN.search(name) and not SHOWN.fullmatch(name) and not isinstance(value, bool):
        return "***"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: …" for key in value) + "}"
    if isinstance(value, re.Pattern):
        return str(value.pattern)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(_masked(str(one)) for one in value)
    return _masked(f"{value:g}" if isinstance(value, float) else str(value))


def _masked(text: str) -> str:
    """Return *text* with the credentials in URLs masked."""
    text = re.sub(r"(?<=://)[^\s?#]*@", "***@", text)
    if "://" not in text:
        return text
    # For an unknown parameter, which may be a misspelt password, show only the name.
    return re.sub(
        r"(?<=[?&])([^=&\s]+)=[^&\s]*",
        lambda found: found[0] if found[1] in SHOWN_PARAMETERS else f"{found[1]}=***",
        text,
    )


def may_be_credentials(text: str) -> bool:
    """Tell whether a JSON object of options has a value that must not be shown; true for anything else, too."""
    with contextlib.suppress(ValueError, RecursionError):
        kwargs = json.loads(text)
        if isinstance(kwargs, dict):
            return any(_is_masked(name, value) for name, value in kwargs.items())
    return True


def _is_masked(name: str, value: Any) -> bool:
    if isinstance(value, list):
        return any(_is_masked(name, one) for one in value)
    # An object is a chain's member or settings of an SDK, which this module does not know.
    return isinstance(value, Mapping) or (isinstance(value, str) and shown_value(name, value) != value)
