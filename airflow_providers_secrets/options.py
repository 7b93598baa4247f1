"""The options of a backend: declared once each, coerced from what Airflow passes, checked at construction.

Airflow passes ``[secrets] backend_kwargs`` as parsed JSON, and since 3.2 lets
``AIRFLOW__SECRETS__BACKEND_KWARG__<NAME>`` override single keys with a *raw string*. So each option accepts both:
``"2"``, ``"true"``, ``"null"`` and JSON text become numbers, booleans, ``None`` and objects.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from airflow_providers_secrets.errors import ConfigurationError, did_you_mean, json_place, quoted

Coerce = Callable[[Any], Any]

CONNECTION_FIELDS: Final = (
    "conn_type",
    "description",
    "login",
    "password",
    "host",
    "schema",
    "port",
    "extra",
)
"""The fields of a connection's JSON; Airflow's constructor fails on any other."""

_REMOVED_FROM_AMAZON: Final = "the official provider removed it in 9.0.0"

OTHER_RELEASES: Final[Mapping[str, Mapping[str, str]]] = {
    "": {
        "full_url_mode": _REMOVED_FROM_AMAZON,
        "are_secret_values_urlencoded": _REMOVED_FROM_AMAZON,
    },
    "aws": {
        "host": "the official provider no longer reads it; write 'endpoint_url'",
        "profile": "the official provider no longer reads it; write 'profile_name'",
        "s3_config_file": "the official provider no longer reads it; write 'profile_name'",
        "s3_config_format": "the official provider no longer reads it; write 'profile_name'",
    },
}
"""Options of older and newer official releases, by the package below ``stores`` (empty: all of them), each with the
reason why it is ignored. Many configurations still set them, or already do."""


def is_empty(value: Any) -> bool:
    """Return whether *value* is an empty string, object or list, or the JSON text of one."""
    return value in ("", "{}", "[]") if isinstance(value, str) else value in ({}, [], ())


class Option:  # not a NamedTuple: creating such a class takes longer than importing a module
    """One option of a backend.

    :param name: its name in ``backend_kwargs``.
    :param coerce: turns what was passed, JSON or text, into the value used. It raises ``ValueError("must be …")`` with
        a text that must not hold the value; that of any other exception is not shown.
    :param default: used when the option is absent or null.
    :param doc: its meaning in one line, with its unit.
    :param identifies_client: whether the client or its answers depend on it. Backends of one class that agree on all
        such options share one client and one cache in a process.
    :param nullable: null is a value of its own here, not a request for the default.
    :param deprecated: what to use instead, if the option is accepted only for old configurations.
    :param ignored: why, or what to use instead, if the option is accepted but has no effect.
    :param empty_is_unset: an empty string, object or list means null, as Helm and Terraform write it and the official
        classes read it. Prefixes and separators may be empty.
    """

    __slots__ = (
        "coerce",
        "default",
        "deprecated",
        "doc",
        "empty_is_unset",
        "identifies_client",
        "ignored",
        "name",
        "nullable",
    )

    def __init__(  # noqa: PLR0913  # one for each property of an option
        self,
        name: str,
        coerce: Coerce,
        default: Any = None,
        doc: str = "",
        *,
        identifies_client: bool = True,
        nullable: bool = False,
        deprecated: str | None = None,
        ignored: str | None = None,
        empty_is_unset: bool = True,
    ) -> None:
        self.name = name
        self.coerce = coerce
        self.default = default
        self.doc = doc
        self.identifies_client = identifies_client
        self.nullable = nullable
        self.deprecated = deprecated
        self.ignored = ignored
        self.empty_is_unset = empty_is_unset

    def is_unset(self, value: Any) -> bool:
        """Return whether *value* asks for the default, or for null if that is a value of its own."""
        if value is None or value == "null":
            return True
        return self.empty_is_unset and is_empty(value)


def text(value: Any) -> str:
    """Accept a string, or a whole number as its digits, since environment variables lose the difference."""
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


def stripped(value: Any) -> str | None:
    """Accept a string without the white space around it; white space alone means "not given".

    A file that a Kubernetes secret is made from often ends in a line break.
    """
    return strict_text(value).strip() or None


def server_url(value: Any) -> str:
    """Accept the address of a server."""
    scheme, _, rest = strict_text(value).partition("://")
    if scheme.lower() not in ("https", "http") or rest[:1] in ("", "/", "?", "#"):
        raise ValueError("must start with https:// or http:// and a host")
    return with_usable_port(str(value))


def with_usable_port(url: str) -> str:
    """Accept an address unless its host or port is invalid; any login may precede them."""
    authority = url.partition("://")[2]
    for end in "/?#":
        authority = authority.partition(end)[0]
    host = authority.rpartition("@")[2]
    try:
        _ = urlsplit(f"//{host}").port
    except ValueError:
        raise ValueError("has an invalid host or port") from None
    return url


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


LONGEST_LIFETIME: Final = 315_360_000
"""The longest lifetime of an answer, in seconds: ten years. A file's timestamp has a limit of its own."""

LONGEST_TIMEOUT: Final = 86_400
"""The longest time-out, in seconds: a day. A socket accepts 24 days, and fails on more."""


def seconds(value: Any) -> float:
    """Accept an answer's lifetime as a number of seconds, zero included."""
    number = _number(value)
    if not 0 <= number <= LONGEST_LIFETIME:
        raise ValueError(f"must be a number of seconds, zero or more and at most {LONGEST_LIFETIME} (ten years)")
    return number


def positive_seconds(value: Any) -> float:
    """Accept a number of seconds to wait, above zero."""
    number = _number(value)
    if not 0 < number <= LONGEST_TIMEOUT:
        raise ValueError(f"must be a number of seconds above zero and at most {LONGEST_TIMEOUT} (a day)")
    return number


def _number(value: Any) -> float:
    """Return *value* as a number, or NaN if it is not one."""
    try:
        return float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


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


BLOCK: Final = 4096
"""The fewest bytes that a file takes, and the step by which it grows, in memory as on most disks."""


def room(value: Any) -> int:
    """Accept a whole number of bytes that has room for at least one file."""
    with contextlib.suppress(ValueError):
        number = count(value)
        if number >= BLOCK:
            return number
    raise ValueError(f"must be a whole number of bytes, at least {BLOCK}")


def pattern(value: Any) -> re.Pattern[str] | None:
    """Accept a regular expression, matched at the start of an id and ignoring case. Empty means none."""
    if not isinstance(value, str):
        raise ValueError("must be a regular expression as a string, or null")
    if not value:
        return None
    try:
        return re.compile(value, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def mapping(value: Any) -> dict[str, Any]:
    """Accept a JSON object, also as text."""
    parsed = _parsed(value)
    if not isinstance(parsed, dict):
        raise ValueError("must be a JSON object")
    return parsed


PROXY_SCHEMES: Final = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
"""The schemes of proxies that urllib3 can use."""


def proxies(value: Any) -> dict[str, str | None]:
    """Accept HTTP proxies as requests takes them: an object of URLs by scheme, ``scheme://host`` or ``all``.

    Null or empty text is no proxy. The key ``no_proxy`` has the hosts that are asked directly.
    """
    given = mapping(value)
    for key, proxy in given.items():
        if not re.fullmatch(r"no_proxy|[a-z][a-z0-9+.-]*(?:://\S+)?", str(key)):  # requests reads no other key
            raise ValueError('must have a scheme, or scheme://host, before each proxy: {"https": "http://proxy:3128"}')
        is_text = proxy is None or isinstance(proxy, str)
        if key == "no_proxy":
            if not is_text:
                raise ValueError("must have the hosts of 'no_proxy' as one text, separated by commas")
        elif not is_text or (proxy and not _is_proxy(proxy)):
            raise ValueError("must have the URL of a proxy, or null, for each scheme")
    return given


def _is_proxy(proxy: str) -> bool:
    """Tell whether urllib3 can use a proxy. A port or host that is none raises an error of its own."""
    url = with_usable_port(proxy if "://" in proxy else f"http://{proxy.removeprefix('//')}")
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may hold the login
        return False
    # requests percent-encodes white space in a login, and takes none elsewhere. urlsplit drops tabs and line breaks.
    address = url.rpartition("@")[2]
    return parts.scheme in PROXY_SCHEMES and bool(parts.hostname) and address.isprintable() and " " not in address


def listed(value: Any, separator: str | None = None) -> list[str]:
    """Accept a list of strings, also as JSON text; other text is a list of one.

    :param separator: what separates several in text; then they are also stripped, and empty ones dropped.
    """
    if isinstance(value, str):
        value = _listed_in(value, separator)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise ValueError("must be a string, a list of strings, or null")
    return [stripped for one in value if (stripped := one.strip())] if separator else list(value)


def _listed_in(text: str, separator: str | None) -> Any:
    plain = text.strip()
    if plain.startswith("["):
        # As some templates write it: brackets, and no quotation marks.
        is_json = separator is None or not re.fullmatch(r"\[[^][{}\"]*\]", plain)
        if is_json:
            return _parsed(plain)
        plain = plain[1:-1]
    return [one.strip(' "\t\r\n') for one in plain.split(separator)] if separator else [text]


def certificate(value: Any) -> tuple[str, ...]:
    """Accept the path of one file that holds certificate and key, or a list of two paths, also as JSON text."""
    files: list[str] = []
    with contextlib.suppress(ValueError):
        files = listed(value)
    # A message about an unreadable file would show a key that stands in place of its path.
    if len(files) not in (1, 2) or not all(files) or any(_is_pem(one) for one in files):
        raise ValueError("must be a path, or a list of two: certificate and key")
    return tuple(files)


def _is_pem(text: str) -> bool:
    return "-----BEGIN" in text or "\n" in text


def path_or_pair(value: Any) -> str | tuple[str, ...]:
    """Accept what :func:`certificate` does, in the form that SDKs take; botocore ignores a list."""
    files = certificate(value)
    return files if len(files) > 1 else files[0]


def field_words(value: Any) -> dict[str, list[str]]:
    """Accept an object that maps fields of a connection to lists of words, also as JSON text."""
    words = mapping(value)
    for field, more in words.items():
        if field != "user" and field not in CONNECTION_FIELDS:
            raise ValueError(f"has the field {quoted(field, 48)}; known: user, {', '.join(CONNECTION_FIELDS)}")
        if not isinstance(more, list) or not all(isinstance(word, str) for word in more):
            raise ValueError(f"needs a list of words for the field {field!r}")
    return words


def one_of(*choices: str) -> Coerce:
    """Accept one of *choices*."""

    def coerce(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(map(repr, choices))}")
        return str(value)

    return coerce


def some_of(*choices: str) -> Coerce:
    """Accept a list of *choices*, also as JSON or comma-separated text."""

    def coerce(value: Any) -> tuple[str, ...]:
        given: list[str] | None = None
        with contextlib.suppress(ValueError):
            given = listed(value, ",")
        if given is None or not set(given) <= set(choices):
            raise ValueError(f"must be a list of any of {', '.join(map(repr, choices))}")
        return tuple(given)

    return coerce


def cache_locations(value: Any) -> tuple[str, ...]:
    """Accept the location of a shared cache, or a list of locations, also as JSON text or comma-separated."""
    given = value
    if isinstance(value, str):
        text = value.strip()
        # Commas also separate the hosts of one URL.
        given = _parsed(text) if text.startswith("[") else re.split(r"(?i),\s*(?=file(?:[:,]|$)|[a-z+]+://)", text)
    if not isinstance(given, list | tuple) or not given:
        raise ValueError(CACHE_LOCATION)
    places = tuple(dict.fromkeys(map(cache_location, given)))
    servers = [not place.startswith("file") for place in places]
    if servers != sorted(servers):
        raise ValueError("must name the host's directory before the fleet's Redis")
    return places


CACHE_LOCATION: Final = (
    "must be 'file', 'file:///directory', or a URL that starts with redis://, rediss:// or unix://, with +cluster or "
    "+sentinel behind redis or rediss (redis+sentinel://host,host/service), or a list of these"
)


def cache_location(value: Any) -> str:
    """Accept the location of a shared cache: ``file``, ``file:///directory`` or a Redis URL.

    The scheme is returned in lower case. A directory is returned as a file-system path: percent-decoded, and without a
    trailing slash, which would make the system follow links.
    """
    where = value.strip() if isinstance(value, str) else ""
    if where.lower() == "file":
        return "file"
    parts = _parts_of(where)
    try:
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
        usable = all(host.hostname and host.port != 0 for host in hosts)
    except ValueError:
        raise ValueError(CACHE_LOCATION) from None
    form = parts.scheme.removeprefix("rediss").removeprefix("redis")
    directory = os.path.normpath("/" + unquote(parts.path).strip("/"))
    if form == "+sentinel":
        usable = usable and bool(parts.path.removeprefix("/").partition("/")[0])
    elif parts.scheme == "file":
        usable = parts.path.startswith("/") and directory != "/" and directory.isprintable()
        usable = usable and not (parts.netloc or parts.query)
    elif parts.scheme == "unix":
        usable = not parts.netloc.rpartition("@")[2] and bool(parts.path.strip("/"))
    elif form == parts.scheme or (form != "+cluster" and (form or len(hosts) > 1)):
        usable = False
    if not usable:
        raise ValueError(CACHE_LOCATION)
    _refuse_other_database(parts)
    return f"file://{directory}" if parts.scheme == "file" else parts.scheme + where[len(parts.scheme) :]


def _parts_of(where: str) -> SplitResult:
    try:
        # urlsplit would skip non-printable characters; the code that uses the URL would not.
        parts = urlsplit(where if where.isprintable() else "")
    except ValueError:
        raise ValueError(CACHE_LOCATION) from None
    if parts.scheme.startswith("redis") and _holds_part_of_login(parts):
        raise ValueError(
            "has an '@' behind the host: percent-encode user and password ('/' as %2F, '?' as %3F, '#' as %23)"
        )
    if "#" in where:
        raise ValueError("has a '#', which begins no part of a location: write it as %23")
    return parts


def _refuse_other_database(parts: SplitResult) -> None:
    """Refuse a path that names no database by its number: redis-py would read a word as 0, and ``1/2`` as 12."""
    if not parts.scheme.startswith("redis"):
        return
    is_sentinel = parts.scheme.endswith("+sentinel")
    database = parts.path.removeprefix("/").partition("/")[2] if is_sentinel else parts.path.lstrip("/")
    if not re.fullmatch("[0-9]*/*", database):
        raise ValueError("must name the database by one whole number: redis://host/0, redis+sentinel://host/service/0")


def _holds_part_of_login(parts: SplitResult) -> bool:
    """Return whether the start of a password was read as host or port, and its end as a part that messages show."""
    parameters = [one.partition("=")[0] for one in parts.query.split("&")]
    return any("@" in one for one in (parts.path, parts.fragment, *parameters))


def texts(value: Any) -> dict[str, str]:
    """Accept a JSON object of strings, also as text."""
    return {name: text(one) if not isinstance(one, bool) else str(one).lower() for name, one in mapping(value).items()}


def key_prefix(value: Any) -> str:
    """Accept a prefix of Redis keys: 1 to 200 characters of ASCII, without spaces and control characters."""
    if isinstance(value, str) and re.fullmatch("[!-~]{1,200}", value):
        return value
    raise ValueError("must be 1 to 200 characters of ASCII without spaces")


def fernet_keys(value: Any) -> tuple[str, ...]:
    """Accept one Fernet key (32 bytes in URL-safe base64), or several, comma-separated."""
    given: list[str] = []
    with contextlib.suppress(ValueError):
        given = listed(value, ",")
    if not given or not all(re.fullmatch("[A-Za-z0-9_-]{43}=", key) for key in given):
        raise ValueError("must be a Fernet key (32 bytes in URL-safe base64), or several, separated by commas")
    return tuple(given)


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None


def parse(backend: str, declared: Iterable[Option], passed: Mapping[str, Any], family: str = "") -> dict[str, Any]:
    """Coerce the *passed* values as the *declared* options of *backend* say.

    :param family: the key in :data:`OTHER_RELEASES` of the options that are known here, beside those of all backends.
    :return: every declared option by its name, with its default if nothing was passed.
    :raises ConfigurationError: for an unknown option (naming the likely one), a value that cannot be
        coerced (naming the option, never the value), or a ``backend_kwargs`` that Airflow dropped.
    """
    _refuse_lost_kwargs(passed)
    options = {option.name: option for option in declared}
    values = {option.name: option.default for option in options.values()}
    for name, value in passed.items():
        option = options.get(name)
        if option is None:
            reason = OTHER_RELEASES[""].get(name) or OTHER_RELEASES.get(family, {}).get(name)
            if reason is None:
                raise ConfigurationError(_unknown(backend, name, options))
            warnings.warn(f"{backend}: option {name!r} is ignored: {reason}.", DeprecationWarning, stacklevel=4)
            continue
        if option.ignored:
            warnings.warn(f"{backend}: option {name!r} is ignored: {option.ignored}.", DeprecationWarning, stacklevel=4)
        if option.deprecated:
            warnings.warn(
                f"{backend}: option {name!r} is deprecated; use {option.deprecated}.",
                DeprecationWarning,
                stacklevel=4,
            )
        if option.is_unset(value):
            values[name] = None if option.nullable else option.default
            continue
        fault: str | None = None
        try:
            values[name] = option.coerce(value)
        except ValueError as error:
            fault = str(error)
        except Exception:  # noqa: BLE001  # another package's option; the error may hold the value
            fault = "cannot be read"
        if fault is not None:
            raise ConfigurationError(f"{backend}: option {name!r} {fault}.")
    return values


def lacking(
    options: Mapping[str, Any], groups: Iterable[Sequence[str]], way: str, stand_ins: Mapping[tuple[str, str], str]
) -> str | None:
    """Name the options of the first of *groups* of which none is given, or return ``None``.

    :param way: the login method that needs one option of each group.
    :param stand_ins: the environment variable that stands in for an option, by login method and option.
    """
    for group in groups:
        variables = [stand_ins[way, name] for name in group if (way, name) in stand_ins]
        if not any(options[name] for name in group) and not any(map(os.environ.get, variables)):
            return " or ".join([*map(repr, group), *variables])
    return None


def _unknown(backend: str, name: str, options: Mapping[str, Option]) -> str:
    return f"{backend}: unknown option {quoted(name)}; {did_you_mean(name, options)}"


def _refuse_lost_kwargs(passed: Mapping[str, Any]) -> None:
    """Raise if Airflow could not parse ``backend_kwargs`` and therefore passed none of it.

    Airflow itself only warns, and the backend would run with its defaults: another prefix, another account.
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
            raise ConfigurationError(
                f"[{section}] {key} is not valid JSON{json_place(error)}, so Airflow passed none of it to the backend. "
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
    """Return a digest that identifies the client of these options, so that no key holds a credential."""
    connection = {option.name: values[option.name] for option in declared if option.identifies_client}
    identity = [owner.__module__, owner.__qualname__, connection]
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=repr).encode()).digest()
