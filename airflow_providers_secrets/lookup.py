"""The policy of every backend: what is looked up, under which name, and what Airflow is told.

Data runs one way: id → rule → names → (cache → fetch → classify, in :mod:`.answers` and :mod:`.access`) → decode.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_providers_secrets import options
from airflow_providers_secrets.errors import ConfigurationError, InvalidSecret, SecretsError, shown
from airflow_providers_secrets.forks import unforked
from airflow_providers_secrets.naming import KINDS, MAX_ID_LENGTH, TEAM_SEP, Kind, Plan, id_fault, team_fault
from airflow_providers_secrets.notices import warn
from airflow_providers_secrets.options import Option
from airflow_providers_secrets.outcomes import ADVICE, POLICY_OPTION, Outcome
from airflow_providers_secrets.store import Store

if TYPE_CHECKING:
    from airflow_providers_secrets import decoding
    from airflow_providers_secrets.answers import Answers
    from airflow_providers_secrets.cache import Entry, Lifetimes

log = logging.getLogger(__name__)

_on_failure = options.one_of("next", "fail")

COMMON_OPTIONS: Final = (
    *(
        option
        for kind in KINDS
        for option in (
            Option(
                f"{kind}_lookup_pattern",
                options.pattern,
                doc=f"Look up only {kind} whose id matches from its start, ignoring case.",
                connection=False,
            ),
            Option(
                f"{kind}_exclude_pattern",
                options.pattern,
                doc=f"Never look up {kind} whose id matches from its start, ignoring case.",
                connection=False,
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
    Option("cache_size", options.count, 1000, "How many answers a process remembers at most."),
    Option(
        "shared_cache",
        options.cache_location,
        doc='Where processes share answers: "file", "file:///directory", "redis://…" or "rediss://…".',
    ),
    Option(
        "shared_cache_key",
        options.fernet_keys,
        doc="The shared cache's Fernet key, or several with commas between; Airflow's own where null.",
    ),
    Option(
        "preload",
        options.some_of(*KINDS),
        (),
        'Kinds to read in bulk on first use: ["connections", "variables"].',
        connection=False,
    ),
    Option("timeout", options.positive_seconds, 10.0, "Seconds for a whole lookup, attempts and pauses included."),
    Option("connect_timeout", options.positive_seconds, 2.0, "Seconds to open a connection to the store."),
    Option("read_timeout", options.positive_seconds, 5.0, "Seconds to wait for the next part of an answer."),
    Option("max_attempts", options.count, 3, "How often the store is asked at most in one lookup."),
    Option("on_denied", _on_failure, "next", "When the store refuses access.", connection=False),
    Option("on_revoked", _on_failure, "next", "When the value was deleted, disabled or destroyed.", connection=False),
    Option("on_unavailable", _on_failure, "next", "When the store gives no answer.", connection=False),
    Option("on_invalid", _on_failure, "next", "When the stored value cannot be used.", connection=False),
)
"""The options that every backend has."""

MAX_PLANS: Final = 4096
"""How many ids' names a backend keeps worked out."""

DENIAL_SINCE: Final = (1, 2, 2)
"""The first Task SDK with ``AirflowSecretsBackendAccessDenied`` (Airflow 3.2.2)."""


class Rule:
    """What of one kind is looked up: under which bases (none: the kind is off) and which ids."""

    __slots__ = ("bases", "exclude", "pattern")

    def __init__(
        self, bases: tuple[str, ...] | None, pattern: re.Pattern[str] | None, exclude: re.Pattern[str] | None
    ) -> None:
        self.bases = bases
        self.pattern = pattern
        self.exclude = exclude


class SecretLookupMixin(Store):
    """All policy of a secrets backend; a subclass names its defaults and speaks to its store.

    Constructing one does no I/O and imports no SDK. Instances are cheap and hold no client: every instance of
    a class with the same connection options shares one client, one login and one cache in a process. Any number
    of threads may use an instance; a forked child starts with a client and a cache of its own. A value is at
    most ``cache_ttl`` seconds old, and at most ``max_stale`` more while the store gives no answer.

    A subclass says what a :class:`~airflow_providers_secrets.store.Store` must say, and:
    """

    own_options: ClassVar[tuple[Option, ...]] = ()
    """The options of this store, beyond the prefixes and the common ones."""
    default_bases: ClassVar[Mapping[Kind, str]]
    """The official default prefix of each kind."""
    base_option: ClassVar[str] = "{kind}_prefix"
    """The name of the option that holds it."""
    default_sep: ClassVar[str | None] = None
    """The default of the option ``sep``; ``None`` where the separator is fixed."""
    sep: str = "/"
    name_pattern: ClassVar[re.Pattern[str]]
    """What the store takes as a name, as a whole."""

    @classmethod
    def declared_options(cls) -> tuple[Option, ...]:
        """All options of this backend."""
        bases = tuple(
            Option(
                cls.base_option.format(kind=kind),
                cls.coerce_base,
                cls.default_bases[kind],
                f"Where {kind} are; null turns their lookup off.",
                connection=False,
                nullable=True,
            )
            for kind in KINDS
        )
        sep = (
            (Option("sep", options.strict_text, cls.default_sep, "Between prefix and id.", connection=False),)
            if cls.default_sep is not None
            else ()
        )
        return (*bases, *sep, *cls.own_options, *COMMON_OPTIONS)

    @staticmethod
    def coerce_base(value: Any) -> Any:
        """Accept what stands for the bases of a kind."""
        return options.strict_text(value)

    def __init__(self, **backend_kwargs: Any) -> None:
        """Check and keep the options.

        :param backend_kwargs: the options of :meth:`declared_options`.
        :raises ConfigurationError: for an option that is unknown or has an unusable value.
        """
        super().__init__()
        declared = self.declared_options()
        self.options: dict[str, Any] = options.parse(type(self).__name__, declared, backend_kwargs)
        if self.default_sep is not None:
            self.sep = self.options["sep"]
        self._rules: dict[Kind, Rule] = {
            kind: Rule(
                self._bases(self.base_option.format(kind=kind)),
                self.options[f"{kind}_lookup_pattern"],
                self.options[f"{kind}_exclude_pattern"],
            )
            for kind in KINDS
        }
        self.check_options()
        self._fingerprint = options.fingerprint(type(self), declared, self.options)
        self._plans: dict[tuple[Kind, str, str | None], Plan] = {}

    def __repr__(self) -> str:
        bases = {self.base_option.format(kind=kind): rule.bases for kind, rule in self._rules.items()}
        return f"<{type(self).__name__} {bases}>"

    @property
    def timeout(self) -> float:
        """Seconds for a whole lookup."""
        return float(self.options["timeout"])

    @property
    def max_attempts(self) -> int:
        """How often the store is asked at most in one lookup."""
        return int(self.options["max_attempts"])

    @property
    def lifetimes(self) -> Lifetimes:
        """How long the process remembers what the store said."""
        from airflow_providers_secrets.cache import Lifetimes

        return Lifetimes(
            *(self.options[name] for name in ("cache_ttl", "cache_negative_ttl", "max_stale", "cache_size"))
        )

    @property
    def shared_cache(self) -> str | None:
        """Where processes share what the store said, if they do."""
        where: str | None = self.options["shared_cache"]
        return where

    @property
    def shared_cache_key(self) -> tuple[str, ...] | None:
        """The shared cache's Fernet keys; ``None`` for Airflow's own."""
        ring: tuple[str, ...] | None = self.options["shared_cache_key"]
        return ring

    @property
    def identity(self) -> bytes:
        """What tells this store, and who asks it, from any other, as far as options do."""
        return options.fingerprint(type(self), self.own_options, self.options)

    # What Airflow calls.

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        """Give the connection as URI or JSON text, or ``None`` where the store proves that it has none.

        :param conn_id: the connection's id.
        :param team_name: the team of the caller, in multi-team mode.
        :raises LookupFailed: when there is no answer; Airflow then asks its next source.
        """
        return self._lookup("connections", conn_id, team_name)

    def get_variable(self, key: str, team_name: str | None = None) -> str | None:
        """Give the variable's text, or ``None`` where the store proves that it has none.

        :param key: the variable's key.
        :param team_name: the team of the caller, in multi-team mode.
        :raises LookupFailed: when there is no answer; Airflow then asks its next source.
        """
        return self._lookup("variables", key, team_name)

    def get_config(self, key: str) -> str | None:
        """Give the text of a configuration option, or ``None`` where the store proves that it has none.

        :param key: what the ``<option>_secret`` setting says.
        :raises LookupFailed: when there is no answer; Airflow then stops with the message.
        """
        value = self._lookup("config", key, None)
        if value is None:
            warn(
                ("absent", "config", key),
                "%s has no configuration value %s: Airflow falls back to the option's default.",
                self.store,
                shown(key),
            )
        return value

    # The way of a lookup.

    def plan(self, kind: Kind, secret_id: str, team_name: str | None = None) -> Plan:
        """Say which names a lookup asks the store for, or why none. Asks nothing itself."""
        rule = self._rules[kind]
        if rule.bases is None:
            return Plan(reason=f"lookups of {kind} are off: {self.base_option.format(kind=kind)} is null")
        if isinstance(secret_id, str):
            if len(secret_id) > MAX_ID_LENGTH:  # before any pattern is tried on it
                return Plan(reason=f"it is longer than {MAX_ID_LENGTH} characters", refused=True)
            if rule.pattern and not rule.pattern.match(secret_id):
                return Plan(reason=f"it does not match {kind}_lookup_pattern")
            if rule.exclude and rule.exclude.match(secret_id):
                return Plan(reason=f"it matches {kind}_exclude_pattern")
        if fault := id_fault(secret_id) or self.team_fault(secret_id, team_name):
            return Plan(reason=fault, refused=True)
        names = tuple(self.names(rule.bases, secret_id, team_name))
        for name in names:
            if not self.name_pattern.fullmatch(name):
                return Plan(reason=f"{self.store} takes no such name", refused=True)
        preloaded = [self.prefix(base) for base in rule.bases] if kind in self.options["preload"] else []
        return Plan(names, tuple(next(filter(name.startswith, preloaded), None) for name in names))

    def _lookup(self, kind: Kind, secret_id: str, team_name: str | None) -> str | None:
        try:
            plan = self._plans[kind, secret_id, team_name]
        except (KeyError, TypeError):  # not seen yet, or no id at all
            plan = self._planned(kind, secret_id, team_name)
        failure: SecretsError
        try:
            for name, prefix in plan.steps:
                entry = self.answers.read(name, prefix)
                if entry.text is not None:
                    decoded: str | None = entry.decoded.get(kind)
                    return decoded or self._decoded(kind, name, entry)
            return None
        except SecretsError as error:
            failure = error
        warn((type(failure), kind), "%s lookup failed: %s", kind.capitalize(), failure)
        raise self._as_policy_says(failure)

    def _planned(self, kind: Kind, secret_id: str, team_name: str | None) -> Plan:
        """Plan a lookup and keep the plan; say why nothing is looked up where nothing is."""
        plan = self.plan(kind, secret_id, team_name)
        if plan.refused:
            warn(
                ("refused", kind, plan.reason),
                "%s: the id %s (%s) is not looked up: %s.",
                self.store,
                shown(secret_id),
                kind,
                plan.reason,
            )
            return plan
        if plan.reason:
            log.debug("%s: %s (%s) is not looked up: %s.", self.store, shown(secret_id), kind, plan.reason)
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[kind, secret_id, team_name] = plan
        return plan

    def _decoded(self, kind: Kind, name: str, entry: Entry) -> str:
        assert entry.text is not None
        decoded = entry.decoded[kind] = self.decode(kind, name, entry.text)
        return decoded

    @property
    def answers(self) -> Answers:
        """What the process has for all backends with these connection options."""
        return (_answers_of or _loaded())(self, self._fingerprint)

    def _as_policy_says(self, failure: SecretsError) -> Exception:
        """Give the error that lets Airflow ask its next source, or the one that forbids it."""
        option = next((name for error, name in POLICY_OPTION.items() if isinstance(failure, error)), None)
        if option is None or self.options[option] == "next":
            return failure
        with unforked():
            from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

        return AirflowSecretsBackendAccessDenied(str(failure))

    # What a store may see differently.

    def check_options(self) -> None:
        """Refuse options that contradict each other or that this Airflow cannot carry out.

        :raises ConfigurationError: naming the option.
        """
        if fault := self.option_fault():
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
        failing = [name for name in POLICY_OPTION.values() if self.options[name] == "fail"]
        if failing and _task_sdk_version() < DENIAL_SINCE:
            raise ConfigurationError(
                f"{type(self).__name__}: option {failing[0]!r} is 'fail', which needs Airflow 3.2.2 or later: "
                "older ones ask their next source whatever a backend says. Set it to 'next' or upgrade."
            )

    def option_fault(self) -> str | None:
        """Name the first of the store's own options that is missing or contradicts another one, or give ``None``."""
        return None

    def _bases(self, option: str) -> tuple[str, ...] | None:
        base = self.options[option]
        if base is None:
            return None
        bases = tuple(self.normalised_bases(base))
        for one in bases:
            if not self.name_pattern.fullmatch(self.name(one, "x")):
                raise ConfigurationError(
                    f"{type(self).__name__}: option {option!r} holds {shown(one)}, with which no name is one that "
                    f"{self.store} takes ({self.name_pattern.pattern})."
                )
        return bases

    @property
    def connection_words(self) -> decoding.Words | None:
        """How the store's JSON objects may name a connection's fields; ``None`` for Airflow's names alone."""
        return None

    def normalised_bases(self, base: Any) -> Iterable[str]:
        """Give the bases that an option's value stands for."""
        yield base.rstrip(self.sep)

    def normalised(self, secret_id: str) -> str:
        """Give *secret_id* as the store's names will spell it."""
        return secret_id

    def team_fault(self, secret_id: str, team_name: str | None) -> str | None:
        """Say why *secret_id* cannot be told from some team's secret, or ``None``."""
        return team_fault(self.normalised(secret_id), team_name)

    def names(self, bases: tuple[str, ...], secret_id: str, team_name: str | None) -> Iterator[str]:
        """Give the candidate names, the team's own first."""
        if team_name:
            for base in bases:
                yield self.name(base, f"{team_name}{TEAM_SEP}{secret_id}")
        for base in bases:
            yield self.name(base, secret_id)

    def prefix(self, base: str) -> str:
        """Give what the store's names of all ids under one base start with."""
        return self.name(base, "")

    def name(self, base: str, secret_id: str) -> str:
        """Give the store's name of an id under one base."""
        return f"{base}{self.sep}{secret_id}"

    def decode(self, kind: Kind, name: str, stored: str) -> str:
        """Give what Airflow parses.

        :raises InvalidSecret: naming the fault, not the value.
        """
        if kind != "connections":
            return stored
        from airflow_providers_secrets import decoding

        try:
            return decoding.connection(stored, self.connection_words)
        except decoding.Fault as fault:
            reason = str(fault)
        raise self.invalid(name, reason)

    def invalid(self, name: str, reason: str) -> InvalidSecret:
        """Make the error for a stored value that cannot be used."""
        return InvalidSecret(self.store, name, reason, self.advice.get(Outcome.INVALID) or ADVICE[Outcome.INVALID])


_answers_of: Callable[[Store, bytes], Answers] | None = None


def _loaded() -> Callable[[Store, bytes], Answers]:
    """Import what a lookup needs beyond its rules: Airflow imports and constructs backends that it never asks."""
    global _answers_of  # noqa: PLW0603
    with unforked():
        from airflow_providers_secrets import answers, decoding  # noqa: F401

        _answers_of = answers.answers_of
    return _answers_of


def _task_sdk_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("apache-airflow-task-sdk")
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
