"""The options of a backend: declared once each, coerced from what Airflow passes, checked at construction.

Airflow passes ``[secrets] backend_kwargs`` as parsed JSON, and since 3.2 lets
``AIRFLOW__SECRETS__BACKEND_KWARG__<NAME>`` override single keys with a *raw string*. So each option
coerces from both: ``"2"``, ``"true"``, ``"null"`` and JSON text arrive as numbers, booleans, ``None``
and objects.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_providers_secrets.errors import ConfigurationError, shown

Coerce = Callable[[Any], Any]

REMOVED_UPSTREAM: Final = frozenset({"full_url_mode", "are_secret_values_urlencoded"})
"""Options that the official Amazon provider removed in 9.0.0 and that still stand in many configurations."""


class Option:  # no NamedTuple: making one takes longer than importing a module
    """One option of a backend.

    :param name: its name in ``backend_kwargs``.
    :param coerce: turns what was passed into the value used; raises ``ValueError("must be …")``.
    :param default: used when the option is absent or null.
    :param doc: one line of meaning, with its unit.
    :param connection: whether it takes part in making the client, or in what an answer comes to. Backends of
        one class that agree on all such options share one client and one cache in a process.
    :param nullable: null is a value of its own here rather than a wish for the default.
    :param deprecated: what to use instead, where the option is accepted for old configurations only.
    """

    __slots__ = ("coerce", "connection", "default", "deprecated", "doc", "name", "nullable")

    def __init__(  # noqa: PLR0913  # one for each thing that there is to say of an option
        self,
        name: str,
        coerce: Coerce,
        default: Any = None,
        doc: str = "",
        *,
        connection: bool = True,
        nullable: bool = False,
        deprecated: str | None = None,
    ) -> None:
        self.name = name
        self.coerce = coerce
        self.default = default
        self.doc = doc
        self.connection = connection
        self.nullable = nullable
        self.deprecated = deprecated


def text(value: Any) -> str:
    """Accept a string; a number is taken as its digits, since environment variables lose the difference."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError("must be a string")


def strict_text(value: Any) -> str:
    """Accept a string and nothing else."""
    if not isinstance(value, str):
        raise ValueError("must be a string or null")
    return value


def flag(value: Any) -> bool:
    """Accept a JSON boolean, or its name or digit as text."""
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return known[str(value).strip().lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def flag_or_path(value: Any) -> bool | str:
    """Accept a boolean, or the path of a file."""
    try:
        return flag(value)
    except ValueError:
        return strict_text(value)


def seconds(value: Any) -> float:
    """Accept a finite number of seconds, zero included."""
    if not isinstance(value, bool):
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = -1.0
        if 0 <= number < float("inf"):
            return number
    raise ValueError("must be a number of seconds, zero or more")


def positive_seconds(value: Any) -> float:
    """Accept a finite number of seconds above zero."""
    number = seconds(value)
    if number == 0:
        raise ValueError("must be a number of seconds above zero")
    return number


def count(value: Any) -> int:
    """Accept a whole number of one or more."""
    if not isinstance(value, bool):
        try:
            number = int(str(value))
        except ValueError:
            number = 0
        if number >= 1:
            return number
    raise ValueError("must be a whole number, one or more")


def pattern(value: Any) -> re.Pattern[str] | None:
    """Accept a regular expression, matched at the start of an id and ignoring case. Empty means none."""
    if not isinstance(value, str):
        raise ValueError("must be a regular expression as a string, or null")
    if not value:
        return None
    try:
        return re.compile(value, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def mapping(value: Any) -> dict[str, Any]:
    """Accept a JSON object, also as text."""
    parsed = _parsed(value)
    if not isinstance(parsed, dict):
        raise ValueError("must be a JSON object")
    return parsed


def one_of(*choices: str) -> Coerce:
    """Accept one of *choices*."""

    def coerce(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(map(repr, choices))}")
        return str(value)

    return coerce


def some_of(*choices: str) -> Coerce:
    """Accept a list of *choices*, also as JSON text."""

    def coerce(value: Any) -> tuple[str, ...]:
        parsed = _parsed(value)
        if not isinstance(parsed, list | tuple) or not set(map(str, parsed)) <= set(choices):
            raise ValueError(f"must be a list of any of {', '.join(map(repr, choices))}")
        return tuple(map(str, parsed))

    return coerce


def cache_location(value: Any) -> str:
    """Accept where a shared cache is: ``file``, ``file:///directory``, ``redis://…`` or ``rediss://…``."""
    fault = "must be 'file', 'file:///directory', or a URL that starts with redis:// or rediss://"
    if not isinstance(value, str):
        raise ValueError(fault)
    if value == "file":
        return value
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(fault) from None
    if parts.scheme == "file":
        usable = not parts.netloc and bool(parts.path.strip("/"))
    if parts.scheme not in ("file", "redis", "rediss") or not usable:
        raise ValueError(fault)
    return value


def fernet_keys(value: Any) -> tuple[str, ...]:
    """Accept one Fernet key (32 bytes in URL-safe base64), or several with commas between."""
    given = value
    if isinstance(value, str):
        given = [key.strip(' "') for key in value.strip().removeprefix("[").removesuffix("]").split(",")]
    usable = isinstance(given, list | tuple) and all(
        isinstance(key, str) and re.fullmatch("[A-Za-z0-9_-]{43}=", key) for key in given
    )
    if not usable or not given:
        raise ValueError("must be a Fernet key (32 bytes in URL-safe base64), or several with commas between")
    return tuple(given)


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("is not valid JSON") from None


def parse(backend: str, declared: Iterable[Option], passed: Mapping[str, Any]) -> dict[str, Any]:
    """Coerce *passed* by the *declared* options of *backend*.

    :return: every declared option by its name, with its default where nothing was passed.
    :raises ConfigurationError: for an unknown option (naming the likely one), a value that cannot be
        coerced (naming the option, never the value), or a ``backend_kwargs`` that Airflow dropped.
    """
    _refuse_lost_kwargs(passed)
    options = {option.name: option for option in declared}
    values = {option.name: option.default for option in options.values()}
    for name, value in passed.items():
        if name in REMOVED_UPSTREAM:
            warnings.warn(
                f"{backend}: option {name!r} was removed by the official provider and is ignored; delete it.",
                DeprecationWarning,
                stacklevel=4,
            )
            continue
        option = options.get(name)
        if option is None:
            raise ConfigurationError(_unknown(backend, name, options))
        if option.deprecated:
            warnings.warn(
                f"{backend}: option {name!r} is deprecated; use {option.deprecated}.",
                DeprecationWarning,
                stacklevel=4,
            )
        if value is None or value == "null":
            values[name] = None if option.nullable else option.default
            continue
        try:
            values[name] = option.coerce(value)
        except ValueError as error:
            raise ConfigurationError(f"{backend}: option {name!r} {error}.") from None
    return values


def _unknown(backend: str, name: str, options: Mapping[str, Option]) -> str:
    import difflib

    likely = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    cure = f"did you mean {likely[0]!r}?" if likely else f"known are {', '.join(sorted(options))}."
    return f"{backend}: unknown option {shown(name)}; {cure}"


def _refuse_lost_kwargs(passed: Mapping[str, Any]) -> None:
    """Notice that Airflow could not parse ``backend_kwargs`` and passed none of it.

    Airflow only warns then, and a backend would run on its defaults: another prefix, another account.
    """
    for section, key in (("secrets", "backend_kwargs"), ("workers", "secrets_backend_kwargs")):
        single = f"AIRFLOW__{section}__{key[:-1]}__".upper()
        by_environment = {n[len(single) :].lower() for n in os.environ if n.startswith(single)}
        if not set(passed) <= by_environment:
            continue
        raw = _configured(section, key)
        if not raw or raw.isspace():
            continue
        try:
            parsed = json.loads(raw)
        except ValueError as error:
            at = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            raise ConfigurationError(
                f"[{section}] {key} is not valid JSON{at}, so Airflow passed none of it to the backend. "
                f"Write one JSON object, with double quotes, in airflow.cfg or in AIRFLOW__{section.upper()}__"
                f"{key.upper()}."
            ) from None
        if not isinstance(parsed, dict):
            raise ConfigurationError(
                f"[{section}] {key} is JSON but not an object, so Airflow passed none of it to the backend. "
                'Write it as {"option": value, …}.'
            )


def _configured(section: str, key: str) -> str | None:
    """Read the raw configuration value without importing Airflow's configuration, which may be importing us."""
    by_environment = os.environ.get(f"AIRFLOW__{section}__{key}".upper())
    if by_environment is not None:
        return by_environment
    conf = getattr(sys.modules.get("airflow.configuration"), "conf", None)
    if conf is None:
        return None
    value: str | None = conf.get(section, key, fallback=None)
    return value


def fingerprint(owner: type, declared: Iterable[Option], values: Mapping[str, Any]) -> bytes:
    """Identify the client that these options make; a digest, so that no credential is kept in a key."""
    connection = {option.name: values[option.name] for option in declared if option.connection}
    identity = [owner.__module__, owner.__qualname__, connection]
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=repr).encode()).digest()
