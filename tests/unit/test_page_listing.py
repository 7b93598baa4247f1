"""The page's listings, without an API server."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from airflow_providers_secrets.backends.chain import ChainBackend
from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.lookup import inventory
from airflow_providers_secrets.lookup.sources import Environment
from airflow_providers_secrets.ui import listing


def test_a_listing_that_took_long_is_new_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be made again for whoever waited for it, and never be shown."""
    now = 1000.0

    class Slow:
        def rule(self, _: str) -> SimpleNamespace:
            nonlocal now
            now += listing.KEPT + 1
            assert made.age == listing.KEPT + 1  # the longest listing is bounded by this
            return SimpleNamespace(prefixes=None)

        def why_off(self, kind: str) -> str:
            return f"{kind}_prefix is null"

    monkeypatch.setattr(listing, "time", SimpleNamespace(monotonic=lambda: now))
    member = SimpleNamespace(patterns={"connections": "all"})
    backends = SimpleNamespace(members=[("slow", Slow(), member)])
    made = listing.Listing(backends, "connections")  # type: ignore[arg-type]
    made.make()
    assert made.done.is_set()
    assert made.problems == ["slow is not asked for connections: connections_prefix is null."]
    assert made.age == 0
    now += 3
    assert made.age == 3


def test_a_listing_has_its_time_from_its_turn_on_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0

    class Paging:
        def rule(self, _: str) -> SimpleNamespace:
            return SimpleNamespace(prefixes=("p",))

    def pages(_: object, kind: str, within: float) -> Iterator[inventory.ListedId]:
        """One page with an id, and then pages without any."""
        nonlocal now
        yield inventory.ListedId(kind, "a", "p/a")  # type: ignore[arg-type]
        now += within

    monkeypatch.setattr(listing, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(inventory, "listed_ids", pages)
    made = listing.Listing(SimpleNamespace(members=[("store", Paging(), None)]), "variables")  # type: ignore[arg-type]
    began = now = now + 2 * listing.LONGEST  # it waited for others that were made before
    made.make()
    assert [row.secret_id for row in made.so_far()[0]] == ["a"]
    assert now == began + listing.LONGEST
    assert made.problems == ["store took too long: the list ends after 60 s."]


def test_a_store_whose_prefixes_both_hold_an_id_does_not_shadow_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = VaultBackend(token="t", variables_path=["team", "common"])

    def pages(_: object, kind: str, within: float) -> Iterator[inventory.ListedId]:
        for name in ("secret/team/x", "secret/common/x"):
            yield inventory.ListedId(kind, "x", name)  # type: ignore[arg-type]

    monkeypatch.setattr(inventory, "listed_ids", pages)
    made = listing.Listing(SimpleNamespace(members=[("Vault", backend, None)]), "variables")  # type: ignore[arg-type]
    made.make()
    assert [(row.sources, row.shadowed) for row in made.so_far()[0]] == [(["Vault"], [])]


def test_a_chains_members_are_listed_for_what_the_chain_asks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    vault = {"backend": "hashicorp_vault", "kwargs": {"token": "t"}}
    chain = ChainBackend(backends=[{**vault, "variables": "^prod"}, {**vault, "variables": None}, vault])
    backends = listing.Backends(chain)
    backends.members = [entry for entry in backends.members if entry[2] is not None]

    def pages(_: object, kind: str, within: float) -> Iterator[inventory.ListedId]:
        for secret_id in ("prod", "test"):
            yield inventory.ListedId(kind, secret_id, f"secret/variables/{secret_id}")  # type: ignore[arg-type]

    monkeypatch.setattr(inventory, "listed_ids", pages)
    made = listing.Listing(backends, "variables")
    made.make()
    first, _, third = (title for title, _, _ in backends.members)
    assert [(row.secret_id, row.sources, row.refused) for row in made.so_far()[0]] == [
        ("prod", [first, third], None),
        ("test", [third], "the id does not match its pattern 'variables'"),
    ]


def test_a_listing_ends_after_so_many_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    class Names(Environment):
        def ids(self, _: str) -> Iterator[tuple[str | None, str]]:
            yield from ((None, f"id-{number}") for number in range(10))

    monkeypatch.setattr(listing, "MOST_IDS", 3)
    made = listing.Listing(SimpleNamespace(members=[("names", Names(), None)]), "variables")  # type: ignore[arg-type]
    made.make()
    assert len(made.so_far()[0]) == 3
    assert made.problems == ["names holds more: the list ends after 3 ids."]


def test_what_ends_while_it_is_looked_at_is_not_shown_in_part_as_all_of_it() -> None:
    """The page would say so and, since there is nothing to wait for, not load itself again."""
    looked_at, ended = threading.Event(), threading.Event()

    class Seen(str):
        """An id that, once somebody sorts it, waits until the listing has ended."""

        __slots__ = ()

        def __lt__(self, other: str) -> bool:
            looked_at.set()
            assert ended.wait(60)
            return super().__lt__(other)

    class Names(Environment):
        def ids(self, _: str) -> Iterator[tuple[str | None, str]]:
            yield from ((None, Seen("b")), (None, Seen("a")))
            begun.set()
            assert looked_at.wait(60)
            yield None, "c"

    begun = threading.Event()
    made = listing.Listing(SimpleNamespace(members=[("names", Names(), None)]), "connections")  # type: ignore[arg-type]
    maker = threading.Thread(target=lambda: (made.make(), ended.set()))
    maker.start()
    assert begun.wait(60)
    rows, done = made.so_far()
    maker.join()
    assert ([row.secret_id for row in rows], done) == (["a", "b"], False)
    rows, done = made.so_far()
    assert ([row.secret_id for row in rows], done) == (["a", "b", "c"], True)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86399, "23 h"), (86400, "1 d")],
)
def test_an_age_is_told_in_its_largest_unit(seconds: int, told: str) -> None:
    now = dt.datetime(2026, 7, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    changed = now - dt.timedelta(seconds=seconds)
    assert listing.age_in_words(changed, now) == told
    assert listing.age_in_words(changed.astimezone(dt.timezone.utc).replace(tzinfo=None), now) == told


@pytest.mark.parametrize("text", ["my_db", "My-DB", "y_d"])
def test_an_id_is_found_in_whichever_spelling_the_store_lists_it(text: str) -> None:
    rows = [listing.Row("my-db", None), listing.Row("My_Db", None), listing.Row("mydb", None)]
    assert [row.secret_id for row in listing.matching(rows, text, "all")] == ["my-db", "My_Db"]
