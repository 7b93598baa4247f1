"""The page "Secrets", on a real API server: what it lists and explains, to whom, and what it never shows."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.testing.speed import slowness
from tests.conftest import RIGS, STORES
from tests.rigs import Rig, running
from tests.rigs.aws import SsmRig
from tests.support.airflow_process import VERSION, Airflow

if VERSION >= (3, 1):
    from tests.support.api_server import api_server, rows

since_airflow_3_1 = pytest.mark.skipif(VERSION < (3, 1), reason="Airflow has such pages from 3.1 on")

VALUE = "S3cr3t-value"
URI = f"postgres://user:{VALUE}@host:5432/db"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
FEW = {"timeout": 5.0, "max_attempts": 1}


@pytest.fixture
def home(airflow: Airflow, database: Path) -> Airflow:
    airflow.use_database(database)
    return airflow


def with_backend(home: Airflow, class_path: str, **kwargs: Any) -> Airflow:
    home.environment["AIRFLOW__SECRETS__BACKEND"] = class_path
    home.environment["AIRFLOW__SECRETS__BACKEND_KWARGS"] = json.dumps(kwargs)
    return home


def fill(rig: Rig) -> None:
    for conn_id in ("page_a", "page_b", "page_shadowing"):
        rig.put(rig.path("connections", conn_id), URI)
    rig.put(rig.path("connections", "page_odd"), f'{{"password": "{VALUE}"')
    rig.put(rig.path("variables", "page_variable"), VALUE)


@since_airflow_3_1
def test_the_page_of_one_store(home: Airflow, ssm: SsmRig, subtests: pytest.Subtests) -> None:
    fill(ssm)
    with_backend(home, ssm.class_path, **ssm.options(), **FEW, connections_exclude_pattern="page_b")
    home.environment["AIRFLOW_CONN_PAGE_SHADOWING"] = f"http://:{VALUE}@env"
    home.environment["AIRFLOW_CONN_ONLY_IN_ENV"] = f"http://:{VALUE}@env"
    with api_server(home) as server:
        answers = []

        def page(path: str, **query: Any) -> Any:
            answer = server.page(path, **query)
            answers.append(answer)
            return answer

        with subtests.test("who may see it"):
            for path in ("connections", "variables", "connection?id=x", "variable?id=x", "health"):
                assert server.get(path, user=None).status_code == 401, path
                assert server.get(path, user="viewer").status_code == 403, path
                assert server.get(path, user="op").status_code == 200, path
        with subtests.test("it is only read"):
            assert {server.get("connections").request.method} == {"GET"}
            import httpx

            assert httpx.post(f"{server.url}/secrets-page/connections", timeout=60).status_code == 405
        with subtests.test("every id, who answers it, and what that shadows"):
            found = rows(page("connections"))
            assert found["page_a"][:3] == [ssm.backend_class.store, "", "/airflow/connections/page_a"]
            assert found["page_shadowing"][:2] == [ssm.backend_class.store, "environment"]
            assert found["only_in_env"][:2] == ["environment", ""]
            assert found["page_a"][3] == "1"
            assert found["page_a"][4].endswith((" s", " min"))
        with subtests.test("what is refused, and what cannot be parsed"):
            found = rows(page("connections"))
            assert "not looked up: it matches connections_exclude_pattern" in found["page_b"][-1]
            assert found["page_b"][0] == "nobody"
            assert "Airflow cannot parse it" in found["page_odd"][-1]
            assert set(rows(page("connections", show="refused"))) == {"page_b"}
            assert set(rows(page("connections", show="shadowed"))) == {"page_shadowing"}
            assert "page_odd" in rows(page("connections", show="invalid"))
        with subtests.test("filter"):
            assert set(rows(page("connections", match="PAGE_A"))) == {"page_a"}
            assert "No connection matches." in page("connections", match="nothing has this").text
        with subtests.test("variables apart"):
            assert set(rows(page("variables", match="page"))) == {"page_variable"}
        with subtests.test("a check reads what is shown, and says how that ends"):
            found = rows(page("connections", match="page_", check=True))
            assert found["page_a"][-1] == "Airflow can use it"
        with subtests.test("one id explained"):
            text = page("connection", id="page_shadowing").text
            assert "Airflow takes it from: <strong>AWS SSM Parameter Store</strong>" in text
            assert '</strong>, which shadows <span class="mark">environment</span>.' in text
            assert "<li>metastore: does not hold it</li>" in text
            assert "It reads as URI with conn_type" in text
            assert "Airflow finds it nowhere" in page("variable", id="page_absent").text
            assert "Airflow could not use it" in page("connection", id="page_odd").text
        with subtests.test("health"):
            text = page("health").text
            assert "arn:aws:sts::" in text or "arn:aws:iam::" in text
            assert "cache_ttl" in text
        with subtests.test("hostile ids are text"):
            for answer in (page("connection", id=HOSTILE), page("connections", match=HOSTILE)):
                assert "<script>alert" not in answer.text
                assert "&lt;script&gt;" in answer.text
            assert "longer than 512 characters" in page("connection", id=HOSTILE * 10).text
        with subtests.test("an address that cannot be read is refused by the page itself"):
            answer = server.get("connections", user="op", page=HOSTILE)
            assert (answer.status_code, "A value in this page&#39;s address cannot be read." in answer.text) == (
                400,
                True,
            )
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "script&gt;" not in answer.text
            assert "<script>alert" not in answer.text
        with subtests.test("nothing of others runs in it"):
            policy = page("connections").headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
            assert "frame-ancestors 'self'" in policy
            assert "unsafe" not in policy
            assert page("connections").headers["Cache-Control"] == "no-store"
        with subtests.test("a denied listing is said, and what others hold is listed"):
            with ssm.fault("denied"):
                answer = page("connections", fresh=True)
                explained = page("connection", id="page_a")
            assert "AWS SSM Parameter Store could not list" in answer.text
            assert "AccessDenied" in answer.text
            assert "only_in_env" in rows(answer)
            assert "AccessDenied" in explained.text
        with subtests.test("a store that is down is said, and the page stays up"):
            with ssm.fault("reset"):
                assert "could not list" in page("connections", fresh=True).text
                assert "cache_ttl" in page("health").text
            assert "page_a" in rows(page("connections", fresh=True))
        with subtests.test("no value, anywhere"):
            assert answers
            for answer in answers:
                assert VALUE not in answer.text, answer.url
                assert ssm.options()["aws_secret_access_key"] not in answer.text
            assert VALUE not in server.log


@since_airflow_3_1
@pytest.mark.long
def test_the_page_of_every_store(home: Airflow, subtests: pytest.Subtests) -> None:
    """Each rig's store is a member of a chain."""
    rigs = {name: running(RIGS[name]) for name in STORES}
    for rig in rigs.values():
        fill(rig)
    members = [{"backend": rig.class_path, "kwargs": {**rig.options(), **FEW}} for rig in rigs.values()]
    with_backend(home, "airflow_providers_secrets.backends.chain.ChainBackend", backends=members)
    with api_server(home) as server:
        for position, (name, rig) in enumerate(rigs.items(), 1):
            title = f"member {position} ({rig.class_path})"
            with subtests.test("listed", store=name):
                (found,) = (cells for row, cells in rows(server.page("connections", match="page", fresh=True)).items()
                            if row.replace("-", "_") == "page_a")  # fmt: skip
                assert title in (found[0] if position == 1 else found[1])
            with subtests.test("explained", store=name):
                text = server.page("connection", id="page_a").text
                assert f"{title}: {'answers' if position == 1 else 'shadowed'}" in text
            with subtests.test("denied", store=name):
                with rig.fault("denied"):
                    text = server.page("connections", fresh=True).text
                assert f"{rig.backend_class.store} could not list" in text  # type: ignore[attr-defined]
            with subtests.test("down", store=name):
                with rig.fault("reset"):
                    text = server.page("connections", fresh=True).text
                assert f"{rig.backend_class.store} could not list" in text  # type: ignore[attr-defined]
        with subtests.test("health"):
            text = server.page("health").text
            for position, rig in enumerate(rigs.values(), 1):
                assert f"member {position} ({rig.class_path})" in text
        with subtests.test("no value"):
            for path in ("connections", "variables", "health"):
                assert VALUE not in server.page(path).text
            assert VALUE not in server.log


@since_airflow_3_1
@pytest.mark.long
@pytest.mark.parametrize(
    "backend", ("", "airflow.secrets.local_filesystem.LocalFilesystemBackend"), ids=("none", "of-another-package")
)
def test_without_a_backend_of_this_package(home: Airflow, backend: str) -> None:
    home.environment["AIRFLOW_CONN_ONLY_IN_ENV"] = f"http://:{VALUE}@env"
    with_backend(home, backend)
    with api_server(home) as server:
        answer = server.page("connections")
        assert ("which is of another package" if backend else "no secrets backend") in answer.text
        assert rows(answer)["only_in_env"][:2] == ["environment", ""]
        assert server.page("health").status_code == 200
        explained = server.page("connection", id="only_in_env").text
        assert "<strong>environment</strong>" in explained
        absent = server.page("connection", id="nowhere").text
        if backend:
            assert "</strong>, unless LocalFilesystemBackend holds it, which was not asked." in explained
            assert "Not found in what could be asked: LocalFilesystemBackend was not." in absent
            assert "Airflow finds it nowhere" not in absent
        else:
            assert "Airflow finds it nowhere" in absent
        assert VALUE not in answer.text + explained


@since_airflow_3_1
@pytest.mark.long
@pytest.mark.skipif(VERSION < (3, 2), reason="Airflow has teams from 3.2 on")
def test_only_the_callers_team(home: Airflow, ssm: SsmRig) -> None:
    for conn_id in ("page_of_all", "blue--page_theirs", "red--page_others"):
        ssm.put(f"/airflow/connections/{conn_id}", URI)
    with_backend(home, ssm.class_path, **ssm.options())
    home.environment["AIRFLOW__CORE__MULTI_TEAM"] = "True"
    created = home.run("teams", "create", "blue")
    assert created.code == 0, created.everything
    assert home.run("teams", "create", "red").code == 0
    home.environment["AIRFLOW_VAR__RED___ROW_SECRETPLAN"] = VALUE
    filled = home.python(
        """
        from airflow.models import Variable
        from airflow.utils.session import create_session
        with create_session() as session:
            session.add(Variable("row_redvar", "S3cr3t-value", team_name="red"))
            session.add(Variable("row_bluevar", "S3cr3t-value", team_name="blue"))
        """
    )
    assert filled.code == 0, filled.everything
    with api_server(home, {"blue": "op:blue", "root": "admin"}) as server:
        found = rows(server.page("connections", user="blue", match="page_"))
        assert {"page_of_all", "page_theirs"} <= set(found)
        assert "page_others" not in found
        assert found["page_theirs"][0] == "blue"
        assert "page_others" in rows(server.page("connections", user="root", match="page_"))
        assert set(rows(server.page("variables", user="blue", match="row_"))) == {"row_bluevar"}
        everything = rows(server.page("variables", user="root", match="row_"))
        assert set(everything) == {"row_bluevar", "row_redvar", "row_secretplan"}
        assert everything["row_redvar"][0] == "red"
        assert server.get("connection", user="blue", id="page_others", team="red").status_code == 403
        assert server.get("connection", user="blue", id="page_theirs", team="blue").status_code == 200
        for spelled in ("_red___page_others", "red--page_others"):
            assert server.get("connection", user="blue", id=spelled).status_code == 403
            assert server.get("connection", user="root", id=spelled).status_code == 200


@since_airflow_3_1
@pytest.mark.skipif(VERSION < (3, 2), reason="Airflow has teams from 3.2 on")
def test_a_teams_rows_and_variables_are_listed_as_that_teams(home: Airflow, ssm: SsmRig) -> None:
    """Only that team's lookups find them, in the metastore and in the environment as in the store."""
    home.use(ssm, {"connections_prefix": "/of-teams/c", "variables_prefix": "/of-teams/v"})
    home.environment["AIRFLOW__CORE__MULTI_TEAM"] = "True"
    for key in ("of_all", "redvar", "red--Plan", "MyVar"):
        ssm.put(f"/of-teams/v/{key}", VALUE)
    for variable in ("_RED___PLAN", "_RED___OF_ALL", "_RED____LED", "MYVAR"):
        home.environment[f"AIRFLOW_VAR_{variable}"] = VALUE
    assert home.run("teams", "create", "red").code == 0
    run = home.python(
        """
        import json
        from airflow.models import Connection, Variable
        from airflow.utils.session import create_session
        with create_session() as session:
            session.add(Variable("redvar", "S3cr3t-value", team_name="red"))
            session.add(Connection("redconn", "http", host="h", team_name="red"))
            session.add(Variable("of_rows", "S3cr3t-value"))
        from airflow_providers_secrets.ui.listing import Backends, Listing, configured_backend
        for kind in ("variables", "connections"):
            listing = Listing(Backends(configured_backend()), kind)
            listing.make()
            rows = [(row.team, row.secret_id, row.sources) for row in listing.so_far()[0]]
            print(kind, json.dumps(sorted(rows, key=str)))
            assert not listing.problems, listing.problems
        from airflow_providers_secrets.lookup.sources import Metastore
        found = [Metastore().text("variables", key, "red") is not None for key in ("redvar", "of_rows")]
        print("OF_RED", found, Metastore().text("variables", "redvar"))
        """
    )
    store = "AWS SSM Parameter Store"
    (found,) = run.printed("variables")
    assert json.loads(found) == [
        ["red", "Plan", [store, "environment"]],
        ["red", "_led", ["environment"]],
        ["red", "of_all", ["environment"]],
        ["red", "redvar", ["metastore"]],
        [None, "MyVar", [store, "environment"]],
        [None, "of_all", [store]],
        [None, "of_rows", ["metastore"]],
        [None, "redvar", [store]],
    ]
    (found,) = run.printed("connections")
    assert ["red", "redconn", ["metastore"]] in json.loads(found)
    assert run.printed("OF_RED") == ["[True, True] None"]
    listed = home._run(
        [sys.executable, "-m", "airflow_providers_secrets.cli", "list", "var", "--shadowed", "-o", "plain"], {}
    )
    shadowed = {line.split("\t")[0]: line.split("\t")[2] for line in listed.output.splitlines()}
    assert shadowed == {"MyVar": "environment", "red--Plan": "environment"}, listed.everything
    copied = home._run(
        [sys.executable, "-m", "airflow_providers_secrets.cli", "copy", "--from", "metastore", "--kind", "var", "-o",
         "json"], {}
    )  # fmt: skip
    states = {one["id"]: one["state"] for one in json.loads(copied.output)}
    assert states == {"of_rows": "create", "red--redvar": "invalid"}


@since_airflow_3_1
def test_it_can_be_turned_off(home: Airflow) -> None:
    run = home.python(
        "from airflow_providers_secrets.ui.plugin import SecretsPage; print(SecretsPage.external_views)",
        AIRFLOW__SECRETS__PAGE="False",
    )
    assert run.last_line == "[]"


@pytest.mark.skipif(VERSION >= (3, 1), reason="Airflow has such pages")
def test_older_airflow_says_that_there_is_none(home: Airflow) -> None:
    run = home.python(
        f"""
        import logging, sys
        sys.argv = ["airflow", {"webserver" if VERSION < (3, 0) else "api-server"!r}]
        from airflow import plugins_manager
        plugins_manager.ensure_plugins_loaded()
        print("LOADED", "secrets_page" in [plugin.name for plugin in plugins_manager.plugins])
        """
    )
    assert run.printed("LOADED") == ["True"], run.everything
    assert "The page 'Secrets' is not available: it needs Airflow 3.1 or later." in run.everything


@since_airflow_3_1
@pytest.mark.measured
def test_start_up_grows_by_twenty_milliseconds_at_most(home: Airflow) -> None:
    run = home.python(
        """
        import sys, time
        import airflow.plugins_manager
        before, started = set(sys.modules), time.process_time()
        from airflow_providers_secrets.ui.plugin import SecretsPage
        print("TOOK", time.process_time() - started)
        print("LOADED", [name for name in set(sys.modules) - before if name.startswith(("fastapi", "jinja2"))])
        """
    )
    assert float(run.printed("TOOK")[0]) < 0.020 * slowness(), run.everything
    assert run.printed("LOADED") == ["[]"]


@since_airflow_3_1
@pytest.mark.measured
def test_five_thousand_names_within_a_second(home: Airflow, ssm: SsmRig) -> None:
    names = [f"/airflow/connections/many_{number:04}" for number in range(5000)]
    with_backend(home, ssm.class_path, **ssm.options())
    with api_server(home) as server, ssm.answering(ssm.page(names, None), listings=True):
        token = server.token("op")
        import httpx

        def first_page() -> tuple[float, str]:
            started = time.monotonic()
            answer = httpx.get(
                f"{server.url}/secrets-page/connections", headers={"Authorization": f"Bearer {token}"}, timeout=60
            )
            return time.monotonic() - started, answer.text

        server.page("variables")  # what a process imports once
        took, _ = first_page()
        assert took < 1.0 * slowness()
        answer = server.page("connections", page=50)
        assert "5,000 connections" in answer.text
        assert "many_4999" in rows(answer)
        took, text = first_page()
        assert took < 1.0 * slowness()
        assert "Page 1 of 50" in text
