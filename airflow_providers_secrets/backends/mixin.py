"""The base of every backend: options and names. The lookup itself is in :mod:`airflow_providers_secrets.lookup`."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_providers_secrets import options
from airflow_providers_secrets.errors import ConfigurationError, quoted
from airflow_providers_secrets.lookup.config import StoreConfig
from airflow_providers_secrets.lookup.forks import collector_paused, no_fork, prepare_before_fork
from airflow_providers_secrets.lookup.notices import warn
from airflow_providers_secrets.lookup.plan import (
    KINDS,
    MAX_ID_LENGTH,
    MISPLACED,
    TEAM_SEP,
    Kind,
    KindRule,
    LookupPlan,
    id_refusal,
    team_refusal,
)
from airflow_providers_secrets.options import Option

if TYPE_CHECKING:
    from airflow_providers_secrets.lookup import decoding

FAILURE_POLICIES: Final = ("on_denied", "on_revoked", "on_unavailable", "on_invalid")
"""The options that say whether a failure lets Airflow ask its next source."""

SCOPE_OPTION: Final = "shared_cache_scope"
"""The option that is part of the shared cache's identity, besides the store's own options."""
KIND_WORDS: Final[Mapping[Kind, str]] = {
    "connections": "connections",
    "variables": "variables",
    "config": "configuration values",
}
"""What the kinds are called in the description of an option."""

_on_failure = options.one_of("next", "fail")

COMMON_OPTIONS: Final = (
    *(
        option
        for kind in KINDS
        for option in (
            Option(
                f"{kind}_lookup_pattern",
                options.pattern,
                doc=f"Look up only {KIND_WORDS[kind]} whose id matches from its start, ignoring case.",
                identifies_client=False,
            ),
            Option(
                f"{kind}_exclude_pattern",
                options.pattern,
                doc=f"Never look up {KIND_WORDS[kind]} whose id matches from its start, ignoring case.",
                identifies_client=False,
            ),
        )
    ),
    Option("cache_ttl", options.seconds, 60.0, "Seconds for which a value is not asked for again; 0: no cache."),
    Option(
        "cache_negative_ttl",
        options.seconds,
        30.0,
        "The same for what is absent, denied, revoked or invalid; 0 is off.",
    ),
    Option(
        "max_stale",
        options.seconds,
        900.0,
        "Seconds for which an expired value may stand in while the store gives no answer.",
    ),
    Option("cache_size", options.count, 1000, "Maximum number of answers that a process caches."),
    Option(
        "shared_cache",
        options.cache_locations,
        (),
        'Where processes share answers: "file", "file:///directory", "redis://…", or a list, the nearest first.',
    ),
    Option(
        "shared_cache_key",
        options.fernet_keys,
        doc="The shared cache's Fernet key, or several, separated by commas; Airflow's own where null.",
    ),
    Option(
        SCOPE_OPTION,
        options.text,
        doc="A text that tells apart who shares: entries of one scope never answer in another. Where an identity "
        "cannot be told by options or environment (EKS Pod Identity), name it here.",
    ),
    Option(
        "shared_cache_max_bytes",
        options.room,
        16 * 1024 * 1024,
        "The most that a shared directory takes, in bytes, 4096 or more; the oldest answers go first.",
    ),
    Option(
        "shared_cache_credentials",
        options.texts,
        doc='Who logs in to the shared Redis, as a JSON object: {"username": …, "password_file": …}.',
    ),
    Option(
        "shared_cache_prefix",
        options.key_prefix,
        "airflow-secrets:",
        "What the shared Redis's keys start with.",
    ),
    Option(
        "preload",
        options.some_of(*KINDS),
        (),
        'Kinds to read in bulk on first use: ["connections", "variables"].',
        identifies_client=False,
    ),
    Option(
        "extra_conn_words",
        options.field_words,
        {},
        'More words for the fields of a connection in JSON: {"password": ["passphrase"]}.',
    ),
    Option(
        "unknown_fields",
        options.one_of("drop", "extra", "refuse"),
        "refuse",
        'What happens to other fields of a connection in JSON: "drop" them, move them into "extra", or "refuse" it.',
    ),
    Option("timeout", options.positive_seconds, 10.0, "Seconds for a whole lookup, attempts and pauses included."),
    Option("connect_timeout", options.positive_seconds, 2.0, "Seconds to open a connection to the store."),
    Option("read_timeout", options.positive_seconds, 5.0, "Seconds to wait for the next part of an answer."),
    Option("max_attempts", options.count, 3, "Maximum number of attempts for each name that a lookup asks for."),
    Option("on_denied", _on_failure, "next", "When the store refuses access.", identifies_client=False),
    Option(
        "on_revoked", _on_failure, "next", "When the value was deleted, disabled or destroyed.", identifies_client=False
    ),
    Option("on_unavailable", _on_failure, "next", "When the store gives no answer.", identifies_client=False),
    Option("on_invalid", _on_failure, "next", "When the stored value cannot be used.", identifies_client=False),
)
"""The options that every backend has."""

DENIAL_SINCE: Final = (1, 2, 2)
"""The first Task SDK with ``AirflowSecretsBackendAccessDenied`` (Airflow 3.2.2)."""


class SecretLookupMixin:
    """A secrets backend's options and names; a subclass defines its defaults and its store.

    Constructing one does no I/O and imports no SDK. Instances are cheap and hold no client: in a process, all instances
    of a class with the same connection options share one client, one login and one cache. Any number
    of threads may use an instance; a forked child starts with a client and a cache of its own. A value is at
    most ``cache_ttl`` seconds old, and at most ``max_stale`` more while the store gives no answer.

    A subclass defines:
    """

    store: ClassVar[str]
    """The store's name in messages."""
    stores: ClassVar[str] = "airflow_providers_secrets.stores"
    """The package that contains the store class; a backend of another package sets its own."""
    store_class: ClassVar[str]
    """The class that talks to the store, as ``module:Class`` below :attr:`stores`. Imported late."""
    own_options: ClassVar[tuple[Option, ...]] = ()
    """The options of this store, besides the prefixes and the common ones; one with the name of a common one replaces
    it."""
    default_prefixes: ClassVar[Mapping[Kind, str]]
    """The official default prefix of each kind."""
    prefix_option: ClassVar[str] = "{kind}_prefix"
    """The name of the option that holds the prefix."""
    default_sep: ClassVar[str | None] = None
    """The default of the option ``sep``; ``None`` if the separator is fixed."""
    sep: str = "/"
    name_pattern: ClassVar[re.Pattern[str]]
    """The pattern that the whole of a name in the store must match."""
    field_words: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The accepted names of a connection's fields in JSON, by field; a field not listed has Airflow's name alone."""
    dropped_fields: ClassVar[Sequence[str]] = ()
    """Fields of such JSON that the store adds for its own use: dropped, whatever the option ``unknown_fields`` says."""
    merges: ClassVar[bool] = False
    """Whether writing a connection keeps other fields of the stored one, which is read first: see :meth:`merged`."""
    loads_before_every_fork: ClassVar[bool] = False
    """Whether even a process that forks for one task loads the SDK before the fork: importing it in every child costs
    more than is saved for the few tasks that look nothing up."""

    @classmethod
    def declared_options(cls) -> tuple[Option, ...]:
        """Return all options of this backend."""
        prefixes = tuple(
            Option(
                cls.prefix_option.format(kind=kind),
                cls.coerce_prefix,
                cls.default_prefixes[kind],
                f"Where {KIND_WORDS[kind]} are; null turns their lookup off.",
                identifies_client=False,
                nullable=True,
                empty_is_unset=False,
            )
            for kind in KINDS
        )
        sep = (
            (
                Option(
                    "sep",
                    cls.coerce_sep,
                    cls.default_sep,
                    "Between prefix and id.",
                    identifies_client=False,
                    empty_is_unset=False,
                ),
            )
            if cls.default_sep is not None
            else ()
        )
        own = {option.name for option in cls.own_options}
        return (*prefixes, *sep, *cls.own_options, *(option for option in COMMON_OPTIONS if option.name not in own))

    @staticmethod
    def coerce_prefix(value: Any) -> Any:
        """Accept the value of a prefix option."""
        return options.strict_text(value)

    @staticmethod
    def coerce_sep(value: Any) -> str:
        """Accept the value of the option ``sep``."""
        return options.strict_text(value)

    def __init__(self, **backend_kwargs: Any) -> None:
        """Check and keep the options.

        :param backend_kwargs: the options of :meth:`declared_options`.
        :raises ConfigurationError: for an option that is unknown or has an unusable value.
        """
        super().__init__()
        declared = self.declared_options()
        self.options: dict[str, Any] = options.parse(
            type(self).__name__, declared, backend_kwargs, self.store_class.partition(":")[0].partition(".")[0]
        )
        if self.default_sep is not None:
            self.sep = self.options["sep"]
        self._rules: dict[Kind, KindRule] = {
            kind: KindRule(
                self._checked_prefixes(kind),
                self.options[f"{kind}_lookup_pattern"],
                self.options[f"{kind}_exclude_pattern"],
            )
            for kind in KINDS
        }
        self.check_options()
        self.config = StoreConfig(
            self.store,
            type(self).__module__.rpartition(".")[2],
            f"{self.stores}.{self.store_class}",
            {option.name: self.options[option.name] for option in declared if option.identifies_client},
            options.fingerprint(type(self), declared, self.options),
            self._identity() if self.options["shared_cache"] else b"",
        )
        """The key by which the process finds its one store with these options."""
        self.plans: dict[tuple[Kind, str, str | None], LookupPlan] = {}
        """The plans made so far, at most :data:`~airflow_providers_secrets.lookup.plan.MAX_CACHED_PLANS`."""
        prepare_before_fork(self.config, also_for_one=self.loads_before_every_fork)

    def _identity(self) -> bytes:
        """Return a digest of which store it is and who asks; only a cache that outlives the process needs it."""
        scope = (option for option in COMMON_OPTIONS if option.name == SCOPE_OPTION)
        return options.fingerprint(type(self), (*self.own_options, *scope), self.options)

    def __repr__(self) -> str:
        rules: dict[Kind, KindRule] = getattr(self, "_rules", {})  # not set if the constructor failed
        prefixes = {self.prefix_option.format(kind=kind): rule.prefixes for kind, rule in rules.items()}
        return f"<{type(self).__name__} {prefixes}>"

    # What Airflow calls.

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        """Return the connection as URI or JSON text, or ``None`` if the store proves that it has none.

        :param conn_id: the connection's id.
        :param team_name: the team of the caller, in multi-team mode.
        :raises LookupFailed: when there is no answer; Airflow then asks its next source.
        """
        return self._lookup("connections", conn_id, team_name)

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        """Return the variable's text, or ``None`` if the store proves that it has none.

        :param key: the variable's key.
        :param team_name: the team of the caller, in multi-team mode.
        :raises LookupFailed: when there is no answer; Airflow then asks its next source.
        """
        return self._lookup("variables", key, team_name)

    async def aget_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        """Return the connection object, as ``get_connection`` does; the Task SDK awaits this (Airflow 3.2+).

        The event loop is never blocked: what is cached is returned at once, and anything else is looked up in a
        thread, at most 16 per event loop at a time. A cancelled caller ends at once; its lookup ends by its
        own deadline, and the answer is cached.

        :param conn_id: the connection's id.
        :param team_name: the team of the caller, in multi-team mode.
        :raises LookupFailed: as :meth:`get_conn_value` does.
        """
        from airflow_providers_secrets.lookup.awaiting import connection_of

        return await connection_of(self, SecretLookupMixin, self.value_in_memory, conn_id, team_name)

    async def aget_variable(self, key: str, team_name: str | None = None) -> str | None:
        """Return the variable's text, as :meth:`get_variable` does; the Task SDK awaits this (Airflow 3.4+).

        Blocks, ends and caches as :meth:`aget_connection` does.

        :param key: the variable's key.
        :param team_name: the team of the caller, in multi-team mode.
        :raises LookupFailed: as :meth:`get_variable` does.
        """
        from airflow_providers_secrets.lookup.awaiting import variable_of

        return await variable_of(self, SecretLookupMixin, self.value_in_memory, key, team_name)

    def value_in_memory(self, kind: Kind, secret_id: str, team_name: str | None = None) -> tuple[str | None] | None:
        """Return what a lookup would if this process has it in memory; else ``None``, at once.

        :param kind: connections or variables.
        """
        method = "get_conn_value" if kind == "connections" else "get_variable"
        if _resolve is None or getattr(type(self), method) is not getattr(SecretLookupMixin, method):
            return None  # nothing was looked up yet, or a subclass looks up in its own way
        from airflow_providers_secrets.lookup.calls import makes_objects
        from airflow_providers_secrets.lookup.resolve import from_memory

        if kind == "connections" and makes_objects(self):
            return None
        return from_memory(self, kind, secret_id, team_name)

    def get_config(self, key: str) -> str | None:
        """Return the text of a configuration option, or ``None`` if the store proves that it has none.

        :param key: the value of the ``<option>_secret`` setting.
        :raises LookupFailed: when there is no answer; Airflow then stops with the message.
        """
        value = self._lookup("config", key, None)
        if value is None:
            warn(
                ("absent", "config", key),
                "%s has no configuration value %s: Airflow falls back to the option's default.",
                self.store,
                quoted(key),
            )
        return value

    # From an id to names.

    def rule(self, kind: Kind) -> KindRule:
        """Return which ids of *kind* are looked up, and under which prefixes."""
        return self._rules[kind]

    def why_off(self, kind: Kind) -> str:
        """Return which option turns the lookup of *kind* off, if :meth:`prefixes_of` says that one does."""
        option = self.prefix_option.format(kind=kind)
        return f"lookups of {kind} are off: {option} is {'null' if self.options[option] is None else 'empty'}"

    def plan(self, kind: Kind, secret_id: str, team_name: str | None = None) -> LookupPlan:
        """Return the names that a lookup requests, or why there are none. Sends no request and logs nothing."""
        rule = self._rules[kind]
        if rule.prefixes is None:
            return LookupPlan(reason=self.why_off(kind))
        if isinstance(secret_id, str):
            if len(secret_id) > MAX_ID_LENGTH:  # before any pattern is tried on it
                return LookupPlan(reason=f"it is longer than {MAX_ID_LENGTH} characters", refused=True)
            if rule.pattern and not rule.pattern.match(secret_id):
                return LookupPlan(reason=f"it does not match {kind}_lookup_pattern")
            if rule.exclude and rule.exclude.match(secret_id):
                return LookupPlan(reason=f"it matches {kind}_exclude_pattern")
        # Airflow's configuration belongs to no team, and no team's secret is under its prefix.
        by_team = kind != "config"
        fault = self.id_refusal(kind, secret_id) or (self.team_refusal(secret_id, team_name) if by_team else None)
        if fault:
            return LookupPlan(reason=fault, refused=True)
        names = tuple(self.names(rule.prefixes, secret_id, team_name))
        for name in names:
            if not self.name_pattern.fullmatch(name):
                reason = MISPLACED if "@" in secret_id else f"{self.store} does not allow this name"
                return LookupPlan(reason=reason, refused=True)
        preloaded = [self.name_start(prefix) for prefix in rule.prefixes] if kind in self.options["preload"] else []
        return LookupPlan(names, tuple(next(filter(name.startswith, preloaded), None) for name in names))

    def _lookup(self, kind: Kind, secret_id: str, team_name: str | None) -> str | None:
        return (_resolve or _loaded())(self, kind, secret_id, team_name)

    # What a subclass may override.

    def check_options(self) -> None:
        """Refuse options that contradict each other or that this version of Airflow does not support.

        :raises ConfigurationError: naming the option.
        """
        if fault := self.option_conflict():
            raise ConfigurationError(f"{type(self).__name__}: {fault}.")
        for option, needed in (
            ("shared_cache", "cache_ttl"),
            ("preload", "cache_ttl"),
            ("preload", "cache_negative_ttl"),
        ):
            if self.options[option] and not self.options[needed]:
                raise ConfigurationError(
                    f"{type(self).__name__}: option {option!r} keeps answers, and {needed!r} is 0, which keeps none. "
                    "Change one of them."
                )
        failing = [name for name in FAILURE_POLICIES if self.options[name] == "fail"]
        if failing and not airflow_knows_denials():
            raise ConfigurationError(
                f"{type(self).__name__}: option {failing[0]!r} is 'fail', which needs Airflow 3.2.2 or later: "
                "older ones ask their next source whatever a backend says. Set it to 'next' or upgrade."
            )

    def option_conflict(self) -> str | None:
        """Return a message about the store's first own option that is missing or contradicts another, or ``None``."""
        return None

    def _checked_prefixes(self, kind: Kind) -> tuple[str, ...] | None:
        prefixes = self.prefixes_of(kind)
        for one in prefixes or ():
            if not self.name_pattern.fullmatch(self.name(one, "x")):
                option, value = self.prefix_option.format(kind=kind), one
                usual = self.name(self.default_prefixes[kind], "x")
                if self.default_sep is not None and not self.name_pattern.fullmatch(usual):
                    option, value = "sep", self.sep  # nothing else could spoil the default prefix
                raise ConfigurationError(
                    f"{type(self).__name__}: option {option!r} holds {quoted(value)}, with which {self.store} does not "
                    f"allow any name ({self.name_pattern.pattern})."
                )
        return prefixes

    @property
    def field_aliases(self) -> decoding.FieldAliases:
        """The names of a connection's fields in the store's JSON objects, and what happens to other fields."""
        with no_fork():
            from airflow_providers_secrets.lookup import decoding

        return decoding.FieldAliases(
            self.field_words, self.options["extra_conn_words"], self.dropped_fields, self.options["unknown_fields"]
        )

    def prefixes_of(self, kind: Kind) -> tuple[str, ...] | None:
        """Return the prefixes that lookups of *kind* go through in order; ``None`` if the options turn them off."""
        given: str | None = self.options[self.prefix_option.format(kind=kind)]
        return None if given is None else (given.rstrip(self.sep),)

    def why_unlisted(self) -> str | None:
        """Return why the options do not say where secrets are, so that only ids can be asked for; else ``None``."""
        return None

    def warn_about(self, plan: LookupPlan, kind: Kind, secret_id: str, team_name: str | None) -> None:
        """Log what the caller should know of a lookup whose *plan* is new and has names. Nothing, by default."""

    def normalised(self, secret_id: str) -> str:
        """Return *secret_id* as it is spelled in the store's names."""
        return secret_id

    def id_refusal(self, kind: Kind, secret_id: object) -> str | None:  # noqa: ARG002  # a store may know better
        """Return what makes *secret_id* unusable as an id of *kind*, or ``None``."""
        return id_refusal(secret_id)

    def team_refusal(self, secret_id: str, team_name: str | None) -> str | None:
        """Return why *secret_id* could be mistaken for a team's secret, or ``None``."""
        return team_refusal(self.normalised(secret_id), team_name)

    def names(self, prefixes: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Yield the candidate names, the team's own first."""
        if team_name:
            for prefix in prefixes:
                yield self.name(prefix, f"{team_name}{TEAM_SEP}{secret_id}")
        for prefix in prefixes:
            yield self.name(prefix, secret_id)

    def name_start(self, prefix: str) -> str:
        """Return what the store's names of all ids under one prefix start with, including the separator."""
        return self.name(prefix, "")

    def name(self, prefix: str, secret_id: str) -> str:
        """Return the store's name of an id under one prefix."""
        return f"{prefix}{self.sep}{secret_id}"

    def id_of(self, prefix: str, name: str) -> str | None:
        """Return the id that *name* is looked up by under one prefix, or ``None`` if it is not under that prefix."""
        start = self.name_start(prefix)
        return name[len(start) :] if name.startswith(start) and len(name) > len(start) else None

    def decode(self, kind: Kind, stored: str) -> str:
        """Return the text that Airflow parses.

        :raises Unusable: naming the reason, not the value.
        """
        if kind != "connections":
            return stored
        with no_fork():
            from airflow_providers_secrets.lookup import decoding

        return decoding.connection(stored, self.field_aliases)

    def encode(self, kind: Kind, text: str) -> str:  # noqa: ARG002  # a store may keep kinds apart
        """Return the text to store so that :meth:`decode` returns *text*; the inverse of it."""
        return text

    def merged(self, stored: str, held: str) -> tuple[str, str]:  # noqa: ARG002  # a store may merge
        """Return what to write for the connection *stored* over the present *held*, and the resulting content.

        :raises Unusable: if other fields of *held* cannot be kept.
        """
        return stored, stored


Resolve = Callable[[SecretLookupMixin, Kind, str, "str | None"], "str | None"]

_resolve: Resolve | None = None


def _loaded() -> Resolve:
    """Import what a lookup needs beyond its names. Late, since Airflow constructs backends that it never asks."""
    global _resolve  # noqa: PLW0603
    with no_fork(), collector_paused():
        from airflow_providers_secrets.lookup import resolve

        _resolve = resolve.resolve
    return _resolve


def airflow_knows_denials() -> bool:
    """Return whether a backend can keep this Airflow from asking its next source."""
    try:
        version = importlib.metadata.version("apache-airflow-task-sdk")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3]) >= DENIAL_SINCE
