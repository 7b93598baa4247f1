"""The page "Secrets" in Chromium, in front of a real API server, for each store's rig."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_providers_secrets.testing.lookups import credentials
from tests.conftest import RIGS, STORES
from tests.rigs import Rig, running
from tests.support.airflow_process import VERSION, Airflow

if VERSION >= (3, 1):
    from tests.support.api_server import api_server
    from tests.support.browser import Visitor, chromium

pytestmark = [
    pytest.mark.skipif(VERSION < (3, 1), reason="Airflow has such pages from 3.1 on"),
    pytest.mark.long,
]

VALUE = "S3cr3t-value"
URI = f"postgres://user:{VALUE}@host:5432/db"
MARKUP = "<b>bold<i>\"'&lt;<script>"
"""What every rig's listing can hold: no name's own signs."""
LONGEST = (MARKUP * 20)[:512]
SCRIPT = "</main><script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
GROUND = "body => getComputedStyle(body).backgroundColor"

TOLD = {
    "AWS SSM Parameter Store": (True, True),
    "AWS Secrets Manager": (True, True),
    "HashiCorp Vault": (False, False),
    "Azure Key Vault": (False, True),
    "Google Secret Manager": (False, True),
    "Kubernetes Secrets": (True, False),
}
"""Whether a store's listing tells a secret's version, and its age."""

RIGHT_TO_LIST = {
    "AWS SSM Parameter Store": "ssm:GetParametersByPath",
    "AWS Secrets Manager": "secretsmanager:BatchGetSecretValue and ListSecrets",
}
"""What a denied listing says to allow, where the rights have names."""

NO_SUCH_NAMES = ("Azure Key Vault", "Google Secret Manager")
"""Whose names cannot hold markup: what a listing says of one is not shown."""

WHO = {
    "AWS SSM Parameter Store": "arn:aws:",
    "AWS Secrets Manager": "arn:aws:",
    "HashiCorp Vault": "approle",
    "Azure Key Vault": "8a5ea0f4-0000-4000-8000-00000000000c",
    "Google Secret Manager": "airflow@test-project.iam.gserviceaccount.com",
    "Kubernetes Secrets": "system:serviceaccount:airflow:worker",
}
"""Who the rig's store says is asking."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def prefix(kind: str) -> str:
    """One of its own: other tests' ids stay out of the lists."""
    return f"shop-{kind}"


class Shop:
    """A rig's store with a few secrets, the environment and the metastore beside it, and an Airflow that asks them."""

    def __init__(self, rig: Rig, airflow: Airflow) -> None:
        self.rig, self.airflow = rig, airflow
        self.title: str = rig.backend_class.store  # type: ignore[attr-defined]
        self._written: list[str] = []
        for conn_id in ("reports", "smtp", "warehouse", "testapi"):
            self._put("connections", conn_id, URI)
        self._put("connections", "ftp", f'{{"password": "{VALUE}", "port": "no number"}}')
        self._put("variables", "region", VALUE)
        prefixes = {rig.prefix_option.format(kind=kind): prefix(kind) for kind in ("connections", "variables")}
        options = {
            **rig.options(),
            "timeout": 5.0,
            "max_attempts": 1,
            **prefixes,
            "connections_exclude_pattern": "test",
        }
        airflow.environment |= {
            "AIRFLOW__SECRETS__BACKEND": rig.class_path,
            "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(options),
            "AIRFLOW_CONN_WAREHOUSE": f"http://:{VALUE}@env",
            f"AIRFLOW_CONN_{MARKUP.upper()}": f"http://:{VALUE}@env",
        }
        with sqlite3.connect(airflow.home / "airflow.db") as database:
            database.execute(
                "insert into connection (conn_id, conn_type, password, is_encrypted, is_extra_encrypted) "
                "values ('smtp', 'smtp', ?, 0, 0)", (VALUE,),
            )  # fmt: skip
        database.close()

    def _put(self, kind: str, secret_id: str, text: str) -> None:
        self._written.append(self.name(kind, secret_id))
        self.rig.put(self._written[-1], text)

    def name(self, kind: str, secret_id: str) -> str:
        return self.rig.path(kind, secret_id, prefix(kind))

    def listing(self, *ids: str) -> Any:
        """Let the store list these ids meanwhile."""
        names = [self.name("connections", one) for one in ids]
        return self.rig.answering(self.rig.page(names, None), listings=True)

    def shot(self, visitor: Visitor, name: str) -> None:
        """Take a screenshot for the documentation, which shows Systems Manager."""
        if self.title == "AWS SSM Parameter Store":
            visitor.shot(name)

    def close(self) -> None:
        for name in self._written:
            self.rig.remove(name)


@pytest.fixture(params=STORES)
def shop(request: pytest.FixtureRequest, airflow: Airflow, database: Path) -> Iterator[Shop]:
    airflow.use_database(database)
    shop = Shop(running(RIGS[request.param]), airflow)
    yield shop
    shop.close()


def test_in_a_browser(browser: Any, shop: Shop, tmp_path: Path, subtests: pytest.Subtests) -> None:
    others = {MARKUP, "smtp", "warehouse"}
    with api_server(shop.airflow) as server:
        op, viewer, nobody = (Visitor(browser, server, user, tmp_path) for user in ("op", "viewer", None))
        with subtests.test("inside Airflow, from its menu"):
            page = op.open("plugin/secrets")
            frame = page.frame_locator("iframe")
            frame.get_by_role("link", name="warehouse").wait_for()
            assert set(op.rows(frame)) == {"ftp", "reports", "testapi"} | others
            shop.shot(op, "page-in-airflow")
            frame.get_by_label("Id holds").fill("SMTP")
            frame.get_by_label("Id holds").press("Enter")
            frame.get_by_text("1 match.").wait_for()
            frame.get_by_role("link", name="smtp").click()
            frame.get_by_text("Airflow takes it from").wait_for()
        with subtests.test("every id, who answers it, version and age"):
            found = op.listed("connections")
            assert set(found) == {"ftp", "reports", "testapi"} | others
            answers, shadows, name, version, age, state = found["reports"]
            assert (answers, shadows, name, state) == (shop.title, "", shop.name("connections", "reports"), "")
            assert (bool(version), bool(age)) == TOLD[shop.title]
            assert found[MARKUP][0] == "environment"
        with subtests.test("filter"):
            op.listed("connections")
            op.page.get_by_label("Id holds").fill("repo")
            op.page.get_by_role("button", name="Filter").click()
            op.page.get_by_text("1 match.").wait_for()
            assert set(op.rows()) == {"reports"}
            op.page.get_by_label("Id holds").fill("nothing has this")
            op.page.get_by_label("Id holds").press("Enter")
            op.page.get_by_text("No connection matches.").wait_for()
        with subtests.test("what is not looked up"):
            op.listed("connections")
            op.page.get_by_label("Show").select_option(label="what is not looked up")
            op.page.get_by_role("button", name="Filter").click()
            op.page.get_by_text("1 match.").wait_for()
            assert op.rows()["testapi"][-1] == "not looked up: it matches connections_exclude_pattern"
        with subtests.test("shadowing, by keyboard alone"):
            found = op.listed("connections?show=shadowed")
            assert {row: cells[:2] for row, cells in found.items()} == {
                "smtp": [shop.title, "metastore"],
                "warehouse": [shop.title, "environment"],
            }
            page = op.page
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.className") == "skip"
            for _ in range(20):
                if page.evaluate("document.activeElement.textContent") == "warehouse":
                    break
                page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            page.get_by_text("which shadows environment").wait_for()
            assert f"Airflow takes it from: {shop.title}" in page.locator("#verdict").inner_text()
            assert "It reads as" in page.locator("main").inner_text()
            shop.shot(op, "page-explain")
        with subtests.test("what Airflow cannot use"):
            op.listed("connections")
            op.page.get_by_role("link", name="Check the first").click()
            op.page.get_by_text("Airflow can use it").first.wait_for()
            checked = {row: cells[-1] for row, cells in op.rows().items()}
            assert {row for row, said in checked.items() if said == "Airflow can use it"} == {
                "reports", "smtp", "warehouse"
            }  # fmt: skip
            assert "its port is not a number from 0 to 65535" in checked["ftp"]
            op.page.get_by_role("link", name="ftp").click()
            op.page.get_by_text("Airflow could not use it: its port is not a number from 0 to 65535.").wait_for()
        with subtests.test("light and dark are Airflow's"):
            page = op.open("plugin/secrets")
            frame = page.frame_locator("iframe")
            frame.get_by_role("link", name="warehouse").wait_for()
            assert frame.locator("body").evaluate(GROUND) == "rgb(255, 255, 255)"
            page.evaluate("localStorage.setItem('theme', 'dark')")
            frame.locator(":root[data-theme=dark]").wait_for()
            assert frame.locator("body").evaluate(GROUND) == "rgb(17, 19, 24)"
            page.evaluate("localStorage.setItem('theme', 'light')")
            frame.locator(":root[data-theme=light]").wait_for()
        with subtests.test("ids are text, whatever they hold"):
            with shop.listing(LONGEST):
                found = op.listed("connections?fresh=true")
            if shop.title not in NO_SUCH_NAMES:
                assert set(found) == {LONGEST, *others}
            assert not op.page.locator("main :is(b, i, script, img)").count()
            for path in ("connection?id=", "connections?match="):
                page = op.open(f"secrets-page/{path}{quote(SCRIPT)}")
                page.locator(f"input[name={'match' if 'match' in path else 'id'}]").wait_for()
                assert not page.locator("main :is(b, i, script, img)").count()
            op.open(f"secrets-page/connection?id={quote(SCRIPT * 12)}")
            op.page.get_by_text("longer than 512 characters").wait_for()
        with subtests.test("a restricted user"):
            for path in ("connections", "variables", "connection?id=smtp", "variable?id=region", "health"):
                page = viewer.open(f"secrets-page/{path}")
                page.get_by_text("You may not see this.").wait_for()
                assert "smtp" not in page.content()
            viewer.open("plugin/secrets").frame_locator("iframe").get_by_text("You may not see this.").wait_for()
            nobody.open("secrets-page/connections").get_by_text("You are not logged in.").wait_for()
        with subtests.test("variables apart"):
            assert set(op.listed("variables")) == {"region"}
        with subtests.test("a denial"):
            with shop.rig.fault("denied"):
                assert set(op.listed("connections?fresh=true")) == others
                said = op.page.get_by_role("alert").inner_text()
                shop.shot(op, "page-denied")
                checked = op.listed("variables?check=true")["region"][-1]
                explained = op.open("secrets-page/connection?id=smtp").locator("main").inner_text()
            assert said.startswith(f"{shop.title} could not list")
            assert RIGHT_TO_LIST.get(shop.title, "airflow-secrets policy --allow list") in said
            for text in (checked, explained):
                assert f"{shop.title} could not give" in text
            assert "Airflow takes it from: metastore" in explained
        with subtests.test("a store that is down"):
            with shop.rig.fault("reset"):
                assert set(op.listed("connections?fresh=true")) == others
                said = op.page.get_by_role("alert").inner_text()
                explained = op.open("secrets-page/connection?id=smtp").locator("main").inner_text()
                op.open("secrets-page/health").get_by_text("cache_ttl").wait_for()
            assert said.startswith(f"{shop.title} could not list")
            assert "Check that the store can be reached from this host and is healthy." in said
            assert f"{shop.title} could not give" in explained
            while "reports" not in op.listed("connections?fresh=true"):  # gRPC pauses before it connects again
                op.page.wait_for_timeout(500)
            assert not op.page.get_by_role("alert").count()
        with subtests.test("a store that hangs holds nobody up, and what is typed meanwhile stays"):
            with shop.rig.fault("hang"):
                page = op.open("secrets-page/connections?fresh=true")
                page.get_by_text("Still listing").wait_for()
                page.get_by_label("Id holds").press_sequentially("repo", delay=500)
                assert page.get_by_label("Id holds").input_value() == "repo"
                page.get_by_label("Id holds").press("Enter")
                page.get_by_text("Still listing").wait_for()
                page.get_by_role("link", name="Health").click()
                page.get_by_text("cache_ttl").wait_for()
                shop.shot(op, "page-health")
            op.open("secrets-page/connections")
            op.rows()
            assert "reports" in op.listed("connections?fresh=true")
        with subtests.test("five thousand names"):
            with shop.listing(*(f"many{number:04}" for number in range(5000))):
                assert "many0000" in op.listed("connections?fresh=true")
                page = op.page
                said = page.locator("main").inner_text()
                assert "5,003 connections" in said, said[:2000]
                assert "Page 1 of 51" in said
                page.get_by_role("link", name="Next").click()
                page.get_by_role("link", name="many0100").wait_for()
                assert len(op.rows()) == 100
                page.get_by_label("Id holds").fill("many499")
                page.get_by_role("button", name="Filter").click()
                page.get_by_text("10 match.").wait_for()
                assert set(op.rows()) == {f"many499{digit}" for digit in range(10)}
        with subtests.test("health"):
            page = op.open("secrets-page/health")
            while not page.get_by_text(WHO[shop.title]).count():  # what it said while it was down counts for 15 s
                page.wait_for_timeout(500)
                page = op.open("secrets-page/health")
            page.get_by_text("cache_ttl").wait_for()
            assert "AccessDenied" in page.locator("main").inner_text()
            shop.shot(op, "page-health")
        said = [*op.said, *viewer.said, *nobody.said]
        with subtests.test("nothing that ids hold is run, and the policy blocks nothing of the page's own"):
            assert not [text for text in said if text.startswith("dialog") or "Content Security Policy" in text]
        received = [answer for visitor in (op, viewer, nobody) for answer in visitor.leave()]
        with subtests.test("nothing comes from another host"):
            assert {url for url, _ in received if not url.removeprefix("blob:").startswith(f"{server.url}/")} == set()
        with subtests.test("no value, in anything that a browser was sent"):
            assert len([text for url, text in received if "/secrets-page/" in url and "<h1>Secrets" in text]) > 30
            for secret in (VALUE, *credentials(shop.rig)):
                assert not [url for url, text in received if secret in text]
                assert secret not in server.log
