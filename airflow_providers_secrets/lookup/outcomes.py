"""The error and the advice for each outcome, and the option that decides what Airflow does about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from airflow_providers_secrets.errors import (
    AccessDenied,
    ConfigurationError,
    InvalidSecret,
    LookupFailed,
    SecretNotFound,
    SecretRevoked,
    SecretsError,
    StoreMisconfigured,
    StoreUnavailable,
)
from airflow_providers_secrets.stores.base import (
    CONNECTION_REFUSED,
    EXISTS,
    LOGIN_UNAVAILABLE,
    MALFORMED,
    NO_ROUTE,
    NO_TLS,
    NOT_ANSWERED,
    NOT_CONNECTED,
    NOT_RESOLVED,
    NOT_THROUGH_PROXY,
    NOT_VALID_NOW,
    OF_ANOTHER_HOST,
    UNTRUSTED,
    Outcome,
)

RETRIED: Final = frozenset({Outcome.UNAVAILABLE, Outcome.THROTTLED})
"""The outcomes that another attempt may change."""

CHANGES: Final = {"write": "written", "delete": "deleted"}
"""The operations that are not repeated if they may have been carried out, each with its participle: only throttling is
certain to refuse one. A second attempt would find the name taken or gone, or write a second version."""

ERRORS: Final[Mapping[Outcome, type[LookupFailed]]] = {
    Outcome.NOT_FOUND: SecretNotFound,
    Outcome.DENIED: AccessDenied,
    Outcome.REVOKED: SecretRevoked,
    Outcome.UNAVAILABLE: StoreUnavailable,
    Outcome.THROTTLED: StoreUnavailable,
    Outcome.INVALID: InvalidSecret,
    Outcome.MISCONFIGURED: StoreMisconfigured,
}

TOO_MUCH: Final = "listing too long"
"""The code of a listing that is too large for a cache."""

ADVICE: Final[Mapping[str | Outcome, str]] = {
    TOO_MUCH: "Take the kind out of the option preload, or divide what is under its prefix.",
    LOGIN_UNAVAILABLE: "Check that the server of the login can be reached from this host and is healthy.",
    EXISTS: "Choose another name, or overwrite it.",
    NOT_VALID_NOW: "Renew the server's certificate, or set this host's clock.",
    OF_ANOTHER_HOST: "Ask under a name that the server's certificate has.",
    UNTRUSTED: "Name the CA bundle that signed the server's certificate in the backend's TLS option.",
    NO_TLS: "Check the scheme and port of the store's address: that port does not speak TLS.",
    CONNECTION_REFUSED: "Check that host and port are right, and that a server is running there.",
    NO_ROUTE: "Check the routes, firewalls and proxies between this host and that one.",
    NOT_ANSWERED: "Check that this server and any proxy are healthy, or raise read_timeout and connect_timeout.",
    NOT_CONNECTED: "Check the firewalls between this host and that one, or raise the option connect_timeout.",
    NOT_RESOLVED: "Check the spelling of the host name, and that this host's DNS knows it.",
    NOT_THROUGH_PROXY: "Check the proxy's address and login, and whether it lets this host through to the store.",
    MALFORMED: "Check that the store's address leads to the store itself, and not to something else.",
    Outcome.NOT_FOUND: "Create it, or ask for another name.",
    Outcome.DENIED: "Allow the backend's identity to read it.",
    Outcome.REVOKED: "Restore it or write a new version.",
    Outcome.UNAVAILABLE: "Check that the store can be reached from this host and is healthy.",
    Outcome.THROTTLED: "Ask less often (shared_cache, preload, lookup patterns), or raise the store's quota.",
    Outcome.INVALID: "Rewrite the secret in a form that Airflow reads.",
    Outcome.MISCONFIGURED: "Fix the backend's options or the environment's credentials.",
}
"""What to do about a code or an outcome, unless a store's own advice is more specific."""

POLICY_OPTION: Final[Mapping[type[SecretsError], str]] = {
    AccessDenied: "on_denied",
    SecretRevoked: "on_revoked",
    StoreUnavailable: "on_unavailable",
    InvalidSecret: "on_invalid",
    # A store that cannot be asked gives no answer, whoever is to blame: a weaker source must not step in.
    # This includes StoreMisconfigured, a missing SDK, and what only a first lookup can detect.
    ConfigurationError: "on_unavailable",
}
"""Which option decides whether an error lets Airflow fall through to its next source."""


def policy_option(failure: SecretsError) -> str | None:
    """Return the option that decides whether *failure* lets Airflow ask its next source; ``None`` if none does."""
    return next((option for error, option in POLICY_OPTION.items() if isinstance(failure, error)), None)


GRANTED: Final = ("list", "write", "delete")
"""What ``airflow-secrets policy --allow`` accepts."""


def advice(codes: Sequence[str], outcome: Outcome, own: Mapping[str | Outcome, str], act: str = "give") -> str:
    """Return the one piece of advice for the first of *codes* that a table knows, else for *outcome*.

    :param own: the store's own table, which takes precedence for each.
    :param act: the verb of the error. What the tables say of an outcome is about reading.
    """
    if outcome is Outcome.DENIED and act in GRANTED and not any(code in own for code in codes):
        return f"Allow the backend's identity to {act} it: airflow-secrets policy --allow {act} prints the rights."
    if outcome is Outcome.NOT_FOUND and act == "delete":
        return "There is nothing to delete; airflow-secrets list shows what is there."
    known_by: list[str | Outcome] = [*codes, outcome]
    cure = next(table[known] for known in known_by for table in (own, ADVICE) if known in table)
    if outcome is Outcome.UNAVAILABLE and act in CHANGES:
        return f"{cure} It may have been {CHANGES[act]} all the same: check with airflow-secrets get."
    return cure
