"""Which ids may be looked up, and how a team's id is distinguished from everybody's.

Pure functions: nothing here touches a client, a cache or the network.
"""

from __future__ import annotations

import re
import sys
from typing import Final, Literal

Kind = Literal["connections", "variables", "config"]

KINDS: Final[tuple[Kind, ...]] = ("connections", "variables", "config")

TEAM_SEP: Final = "--"
"""Separates the team from the id in the name of a team's secret (Airflow, AIP-67)."""

MAX_ID_LENGTH: Final = 512


MAX_CACHED_PLANS: Final = 4096
"""Maximum number of cached plans of one backend."""


class KindRule:
    """Which ids of one kind are looked up, and under which prefixes (none: the kind is off)."""

    __slots__ = ("exclude", "pattern", "prefixes")

    def __init__(
        self, prefixes: tuple[str, ...] | None, pattern: re.Pattern[str] | None, exclude: re.Pattern[str] | None
    ) -> None:
        self.prefixes = prefixes
        self.pattern = pattern
        self.exclude = exclude


class LookupPlan:
    """What a lookup will ask the store.

    :param names: the candidate names in the store's spelling, in the order they are tried.
    :param prefixes: for each name, the prefix whose listing may answer it; ``None`` if it is read by itself.
    :param reason: if there are no names, why.
    :param refused: the id is not allowed at all, which deserves a warning; otherwise the options simply keep it from
        this store.
    """

    __slots__ = ("names", "reason", "refused", "steps")

    def __init__(
        self,
        names: tuple[str, ...] = (),
        prefixes: tuple[str | None, ...] = (),
        *,
        reason: str | None = None,
        refused: bool = False,
    ) -> None:
        self.names = names
        self.steps = tuple(zip(names, prefixes, strict=True))
        """The names, each with its prefix."""
        self.reason = reason
        self.refused = refused

    def __repr__(self) -> str:
        return f"LookupPlan(names={self.names}, reason={self.reason!r})"


MISPLACED: Final = (
    "it looks like a connection string, where the id of a secret belongs: store the string under an id, and let the "
    "*_secret option hold that id"
)
"""Why an id is refused that is itself the value that a secret should hold."""


def id_refusal(secret_id: object) -> str | None:
    """Return what makes *secret_id* unusable in every store, or ``None``.

    Empty, ``.`` and ``..`` segments would leave the prefix once a client or proxy normalises the path
    (RFC 3986, section 5.2.4), and control characters forge log lines.
    """
    if not isinstance(secret_id, str):
        return "it is not a string"
    if not secret_id.isprintable():
        return "it has control characters"
    if "://" in secret_id:
        return MISPLACED
    if any(segment in ("", ".", "..") for segment in secret_id.split("/")):
        return "it has an empty, '.' or '..' segment"
    return None


def team_refusal(secret_id: str, team_name: str | None) -> str | None:
    """Return why *secret_id* cannot be distinguished from some team's secret, or ``None``.

    ``a`` + ``b--c`` and ``a--b`` + ``c`` spell the same name, and so do ``a`` + ``-b`` and ``a-`` + ``b``. If ids
    neither contain the separator nor start with ``-``, the last separator of a name ends the team.
    """
    if TEAM_SEP in secret_id and (team_name or multi_team()):
        return f"it contains {TEAM_SEP!r}, which separates a team from an id in multi-team mode"
    if team_name:
        if secret_id.startswith("-"):
            return "it starts with '-', which cannot be told from the end of a team's name"
        return team_name_refusal(team_name)
    return None


def team_name_refusal(team_name: str) -> str | None:
    """Return what makes *team_name* unusable in a name, or ``None``."""
    if not team_name.replace("-", "").replace("_", "").isalnum() or not team_name.isascii():
        return "the team's name holds more than letters, digits, '-' and '_'"
    return None


def team_and_id(listed: str) -> tuple[str | None, str]:
    """Split an id of a store's listing into the team that owns it, ``None`` for everybody's, and the id itself."""
    team, _, secret_id = listed.rpartition(TEAM_SEP)
    return (team, secret_id) if team and multi_team() else (None, listed)


def multi_team() -> bool:
    """Return whether ``[core] multi_team`` is on (Airflow 3.2+), without importing Airflow's configuration."""
    conf = getattr(sys.modules.get("airflow.configuration"), "conf", None)
    return conf is not None and bool(conf.getboolean("core", "multi_team", fallback=False))
