"""Side by side with the official class, on the same OpenBao: the same names asked, the same answers given.

Not part of the tests, which need no official provider: ``tox -e parity`` installs it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.hashicorp._internal_client.vault_client import VaultError
from airflow.providers.hashicorp.secrets.vault import VaultBackend as Official

from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.errors import AccessDenied, ConfigurationError, InvalidSecret, SecretRevoked
from airflow_providers_secrets.testing.lookups import LOOKUP
from tests.parity.reading import observed, read
from tests.rigs import running
from tests.rigs.openbao import ROOT_TOKEN
from tests.rigs.vault import VaultRig

PATHS: list[Any] = [
    "connections",
    "connections/",
    "a/b",
    "",
    None,
    [],
    ["connections", "shared"],
    ["nowhere/", "", "shared"],
]
IDS = ["smtp_default", "Upper", "with-dash", "with.dot", "a/b", "a--b", "a__b", "a b", "é", "x" * 200]
MOUNTS = {"kv2": 2, "kv1": 1}


@pytest.fixture(scope="module")
def rig() -> VaultRig:
    rig = running("tests.rigs.vault:VaultRig")
    assert isinstance(rig, VaultRig)
    for mount, version in MOUNTS.items():
        rig.server.engine(mount, version)
        for path in ("connections", "shared", "a/b"):
            for name in ("smtp_default", "a/b"):
                write(rig, mount, f"{path}/{name}", {"conn_uri": f"http://{path.replace('/', '-')}", "value": path})
    return rig


def write(rig: VaultRig, mount: str, name: str, data: dict[str, Any]) -> None:
    if MOUNTS[mount] == 2:
        rig.write(f"{mount}/{name}", data)
    else:
        rig.server.api("POST", f"{mount}/{name}", data)


def backends(rig: VaultRig, mount: str | None = "kv2", **options: Any) -> tuple[Any, Any]:
    """Both backends with the same options, by the root token unless *options* say otherwise."""
    version = MOUNTS.get(mount or "", 2)
    given = {"url": rig.proxy.url, "token": ROOT_TOKEN, "mount_point": mount, "kv_engine_version": version, **options}
    return VaultBackend(cache_ttl=0, **given), Official(**given)


def option(kind: str) -> str:
    return f"{kind}_path"


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("kind", LOOKUP)
@pytest.mark.parametrize("mount", MOUNTS)
def test_names_and_answers(rig: VaultRig, mount: str, kind: str, path: Any) -> None:
    ours, theirs = backends(rig, mount, **{option(kind): path})
    for secret_id in IDS:
        how = (LOOKUP[kind], secret_id)
        assert observed(rig, ours, *how) == observed(rig, theirs, *how), secret_id


@pytest.mark.parametrize("path", PATHS, ids=repr)
@pytest.mark.parametrize("kind", LOOKUP)
@pytest.mark.parametrize("mount_point", [None, ""])
@pytest.mark.parametrize("mount", MOUNTS)
def test_the_mount_in_the_id(rig: VaultRig, mount: str, mount_point: str | None, kind: str, path: Any) -> None:
    options = {"mount_point": mount_point, "kv_engine_version": MOUNTS[mount], option(kind): path}
    ours, theirs = backends(rig, **options)
    for secret_id in (f"{mount}/smtp_default", f"{mount}/a/b", f"{mount}/absent", "no_mount"):
        how = (LOOKUP[kind], secret_id)
        assert observed(rig, ours, *how) == observed(rig, theirs, *how), secret_id


@pytest.mark.parametrize("kind", LOOKUP)
def test_defaults(rig: VaultRig, kind: str) -> None:
    given = {"url": rig.proxy.url, "token": ROOT_TOKEN}
    ours, theirs = VaultBackend(cache_ttl=0, **given), Official(**given)
    assert observed(rig, ours, LOOKUP[kind], "nothing") == observed(rig, theirs, LOOKUP[kind], "nothing")


@pytest.mark.parametrize("path", ["shared", "shared/", ""])
def test_global_path(rig: VaultRig, path: str) -> None:
    with pytest.warns(DeprecationWarning, match="global_secrets_path"):
        ours, theirs = backends(rig, global_secrets_path=path, variables_path=None)
    for method, secret_id in (("get_variable", "smtp_default"), ("get_conn_value", "absent"), ("get_config", "absent")):
        assert observed(rig, ours, method, secret_id) == observed(rig, theirs, method, secret_id)


# Teams.


@pytest.mark.usefixtures("multi_team")
@pytest.mark.parametrize("scoped", [True, False])
@pytest.mark.parametrize("path", ["variables", None, ["variables", "shared"], "a/b"], ids=repr)
@pytest.mark.parametrize("team", ["red", "team_a", "a-b", "Upper", None])
def test_teams(rig: VaultRig, team: str | None, path: Any, scoped: bool) -> None:
    write(rig, "kv2", "variables/red/own", {"value": "red's"})
    write(rig, "kv2", "variables/own", {"value": "everybody's"})
    ours, theirs = backends(rig, variables_path=path, use_team_secrets_path=scoped)
    for key in ("own", "absent", "a--b", "red/own"):
        how = ("get_variable", key)
        assert observed(rig, ours, *how, team_name=team) == observed(rig, theirs, *how, team_name=team), key
    assert observed(rig, ours, "get_config", "red/own") == observed(rig, theirs, "get_config", "red/own")


def test_without_multi_team_a_team_changes_nothing(rig: VaultRig) -> None:
    ours, theirs = backends(rig)
    how = ("get_conn_value", "smtp_default")
    assert observed(rig, ours, *how, team_name="red") == observed(rig, theirs, *how, team_name="red")


@pytest.mark.usefixtures("multi_team")
def test_listed_paths_inside_each_other(rig: VaultRig) -> None:
    """What is under the inner path is the inner path's alone; the official class gives it to a team of that name."""
    write(rig, "kv2", "all/shared/own", {"value": "everybody's"})
    ours, theirs = backends(rig, connections_path="all/shared", variables_path="all")
    assert observed(rig, theirs, "get_variable", "own", team_name="shared")[0] == "everybody's"
    assert observed(rig, ours, "get_variable", "own", team_name="shared") == (None, [])


# Values.

GIVEN = {
    "uri": {"conn_uri": "postgres://u:p@h:5432/db"},
    "uri with its own uri": {"conn_uri": "aws:///?endpoint_url=http://minio:9000&region_name=us-east-1"},
    "uri beside fields": {"conn_uri": "http://h", "host": "other", "note": "x"},
    "fields": {"conn_type": "http", "host": "https://h", "login": "u", "password": "p", "port": 80, "schema": "s"},
    "port as text": {"conn_type": "http", "host": "h", "port": "80"},
    "port as float": {"conn_type": "http", "host": "h", "port": 80.0},
    "extra": {"conn_type": "x", "extra": {"a": [1, None]}},
    "extra as text": {"conn_type": "x", "extra": '{"a": 1}'},
    "extra is false": {"conn_type": "x", "extra": False},
    "null": {"conn_type": "x", "host": None, "extra": None},
    "description": {"conn_type": "x", "description": "d"},
    "no type": {"host": "h"},
}


@pytest.mark.parametrize("data", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("mount", MOUNTS)
def test_the_same_connections_are_given(rig: VaultRig, mount: str, data: dict[str, Any]) -> None:
    write(rig, mount, "connections/parity", data)
    ours, theirs = (read(backend.get_conn_value("parity")) for backend in backends(rig, mount))
    assert ours == theirs


REFUSED = {
    "misread": {"conn_uri": "spark://spark://spark-master:7077"},
    "two uris": {"conn_uri": "http://http://api.example.com"},
    "uri of another type": {"conn_uri": 5},
    "unknown field": {"conn_type": "x", "hots": "h"},
    "wrong port": {"conn_type": "x", "port": "none"},
    "nothing": {},
    "nothing but nulls": {"host": None},
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_listed_connections_are_named(rig: VaultRig, data: dict[str, Any]) -> None:
    write(rig, "kv2", "connections/refused", data)
    ours, theirs = backends(rig)
    assert theirs.get_conn_value("refused") is not None
    with pytest.raises(InvalidSecret):
        ours.get_conn_value("refused")


@pytest.mark.parametrize("uri", ["", None])
def test_listed_fields_beside_an_empty_uri_are_given(rig: VaultRig, uri: str | None) -> None:
    fields = {"conn_type": "http", "host": "h"}
    write(rig, "kv2", "connections/no-uri", {"conn_uri": uri, **fields})
    ours, theirs = backends(rig)
    assert json.loads(ours.get_conn_value("no-uri")) == fields
    assert json.loads(theirs.get_conn_value("no-uri")) == {"conn_uri": uri, **fields}  # which Airflow fails on
    with pytest.raises(TypeError):
        read(theirs.get_conn_value("no-uri"))


JSON_VALUES: list[Any] = [5, 1.5, True, False, {"a": 1}, {}, [1, "2"], [], 0]


@pytest.mark.parametrize("kind", ["variables", "config"])
@pytest.mark.parametrize("mount", MOUNTS)
def test_values(rig: VaultRig, mount: str, kind: str) -> None:
    method = LOOKUP[kind]
    ours, theirs = backends(rig, mount)
    for text in ("text", "", " spaced ", "é", '{"a": 1}', "null"):
        write(rig, mount, f"{kind}/text", {"value": text, "other": 1})
        assert observed(rig, ours, method, "text") == observed(rig, theirs, method, "text")
    for value in JSON_VALUES:  # listed: their JSON text
        write(rig, mount, f"{kind}/json", {"value": value})
        assert getattr(theirs, method)("json") == value
        assert json.loads(getattr(ours, method)("json")) == value
    # Listed: InvalidSecret. Version 1 stores nothing without a key.
    for data in ({"other": 1}, {"value": None}, *([{}] if mount == "kv2" else ())):
        write(rig, mount, f"{kind}/none", data)
        assert getattr(theirs, method)("none") is None
        with pytest.raises(InvalidSecret):
            getattr(ours, method)("none")


def test_listed_deleted_version(rig: VaultRig) -> None:
    rig.write("kv2/variables/deleted", {"value": "x"})
    rig.server.api("DELETE", "kv2/data/variables/deleted")
    ours, theirs = backends(rig)
    assert theirs.get_variable("deleted") is None
    with pytest.raises(SecretRevoked):
        ours.get_variable("deleted")


def test_listed_denial(rig: VaultRig) -> None:
    """Officially each lookup reads, logs in and reads; here the first one alone asks."""
    given = {**rig.options(), "mount_point": "kv2"}
    ours, theirs = VaultBackend(**given), Official(**given)
    asked: dict[str, list[tuple[int, int]]] = {"ours": [], "theirs": []}
    for name, backend, error in (("theirs", theirs, Exception), ("ours", ours, AccessDenied)):
        for _ in range(2):
            logins = len(rig.logins)
            with rig.counted() as calls, pytest.raises(error):
                backend.get_variable("smtp_default")
            asked[name].append((len(rig.logins) - logins, len(calls)))
    # A backend's very first login is not the denial's.
    assert asked["theirs"] == [(2, 2), (1, 2)]
    assert asked["ours"] == [(2, 2), (0, 0)]


@pytest.mark.parametrize("secret_id", ["../connections/smtp_default", "../../sys/health", "a//b", "a/", "x\n"])
def test_listed_ids_are_refused(rig: VaultRig, secret_id: str) -> None:
    ours, theirs = backends(rig)
    assert observed(rig, ours, "get_variable", secret_id) == (None, [])
    with rig.counted() as calls, contextlib.suppress(Exception):
        theirs.get_variable(secret_id)
    assert calls or secret_id.startswith("../../sys")


def test_listed_path_twice_is_asked_once(rig: VaultRig) -> None:
    ours, theirs = backends(rig, variables_path=["shared", "shared"])
    asked = observed(rig, ours, "get_variable", "absent"), observed(rig, theirs, "get_variable", "absent")
    assert asked == ((None, ["kv2/data/shared/absent"]), (None, ["kv2/data/shared/absent"] * 2))


# Options.

TEXT_OPTIONS = (
    *("auth_mount_point", "token_path", "username", "password", "key_id", "secret_id", "role_id", "region"),
    *("assume_role_kwargs", "kubernetes_role", "kubernetes_jwt_path", "gcp_key_path", "gcp_keyfile_dict", "gcp_scopes"),
    *("azure_tenant_id", "azure_resource", "radius_host", "radius_secret", "radius_port", "jwt_role", "jwt_token"),
    *("jwt_token_path", "verify", "cert", "proxies", "namespace"),
)


@pytest.mark.parametrize("name", TEXT_OPTIONS)
def test_empty_options(rig: VaultRig, name: str) -> None:
    """An empty string is "not given", whichever option it is."""
    ours, theirs = backends(rig, **{name: ""})
    assert observed(rig, ours, "get_variable", "absent") == observed(rig, theirs, "get_variable", "absent")


@pytest.mark.parametrize("given", [{"auth_type": ""}, {"auth_type": "kubernetes", "kubernetes_jwt_path": ""}], ids=str)
def test_listed_empty_options(given: dict[str, str]) -> None:
    with pytest.raises(VaultError):
        Official(token="t", kubernetes_role="r", **given)
    ours = VaultBackend(token="t", kubernetes_role="r", **given)
    assert ours.options == VaultBackend(token="t", kubernetes_role="r", **{k: v for k, v in given.items() if v}).options


@pytest.mark.usefixtures("multi_team")
def test_listed_empty_switch(rig: VaultRig) -> None:
    ours, theirs = backends(rig, use_team_secrets_path="")
    asked = [observed(rig, one, "get_variable", "absent", team_name="red")[1] for one in (ours, theirs)]
    assert asked == [["kv2/data/variables/red/absent"], ["kv2/data/variables/absent"]]


def test_empty_address(rig: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", rig.proxy.url)
    ours, theirs = backends(rig, url="")
    assert observed(rig, ours, "get_variable", "absent") == observed(rig, theirs, "get_variable", "absent")


def tokens(rig: VaultRig, backend: Any) -> list[str | None]:
    """The tokens that a lookup sends."""
    before = len(rig.proxy.requests)
    with contextlib.suppress(Exception):
        backend.get_variable("absent")
    return list(dict.fromkeys(request.headers.get("X-Vault-Token") for request in rig.proxy.requests[before:]))


@pytest.mark.parametrize("environment", [True, False])
@pytest.mark.parametrize("given", [("token",), ("token_path",), ("token", "token_path")], ids="+".join)
def test_which_token_counts(
    rig: VaultRig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    environment: bool,
) -> None:
    made = [rig.server.api("POST", "auth/token/create", {})["auth"]["client_token"] for _ in range(3)]
    (tmp_path / "token").write_text(made[1])
    if environment:
        monkeypatch.setenv("VAULT_TOKEN", made[2])
    choices = {"token": made[0], "token_path": str(tmp_path / "token")}
    options = {"token": None, **{name: choices[name] for name in given}}
    ours, theirs = backends(rig, **options)
    assert tokens(rig, ours) == tokens(rig, theirs)


def logins(rig: VaultRig, backend: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The logins that a lookup tries, whether they succeed or not, each once."""
    before = len(rig.proxy.requests)
    with contextlib.suppress(Exception):
        backend.get_variable("absent")
    seen = []
    for request in rig.proxy.requests[before:]:
        if request.path.startswith("/v1/auth/") and request.method in ("POST", "PUT"):
            login = request.path, json.loads(request.body)
            if login not in seen:
                seen.append(login)
                yield login


@pytest.mark.parametrize("given", [("jwt_token",), ("jwt_token_path",), ("jwt_token", "jwt_token_path")], ids="+".join)
def test_which_jwt_counts(rig: VaultRig, tmp_path: Path, given: tuple[str, ...]) -> None:
    (tmp_path / "jwt").write_text("of-the-file")
    choices = {"jwt_token": "of-the-option", "jwt_token_path": str(tmp_path / "jwt")}
    options = {"auth_type": "jwt", "jwt_role": "airflow", **{name: choices[name] for name in given}}
    ours, theirs = (list(logins(rig, backend)) for backend in backends(rig, **options))
    assert ours == theirs
    assert len(ours) == 1


LOGINS: dict[str, dict[str, Any]] = {
    "approle": {"role_id": "r", "secret_id": "s"},
    "approle without a secret": {"auth_type": "approle", "role_id": "r"},
    "userpass": {"username": "u", "password": "p"},
    "ldap": {"username": "u", "password": "p"},
    "kubernetes": {"kubernetes_role": "airflow"},
    "elsewhere": {"auth_type": "approle", "auth_mount_point": "another", "role_id": "r", "secret_id": "s"},
}


@pytest.mark.parametrize("name", LOGINS)
def test_logins(rig: VaultRig, tmp_path: Path, name: str) -> None:
    (tmp_path / "jwt").write_text("of-the-pod")
    options = {"auth_type": name, "kubernetes_jwt_path": str(tmp_path / "jwt"), **LOGINS[name]}
    ours, theirs = (list(logins(rig, backend)) for backend in backends(rig, **options))
    given = [[(path, {k: v for k, v in body.items() if v is not None}) for path, body in one] for one in (ours, theirs)]
    assert given[0] == given[1]
    assert len(ours) == 1


def signers(rig: VaultRig, backend: Any) -> list[str]:
    """The access keys that sign a lookup's logins."""
    bodies = (json.dumps(body) for _, body in logins(rig, backend))
    encoded = (json.loads(body).get("iam_request_headers", "") for body in bodies)
    found = (re.search(r"Credential=([^/]+)", base64.b64decode(one).decode()) for one in encoded)
    return list(dict.fromkeys(one[1] for one in found if one))


@pytest.mark.parametrize("more", [{}, {"assume_role_kwargs": {"RoleArn": "arn:aws:iam::1:role/x"}}], ids=str)
def test_which_aws_credentials_count(rig: VaultRig, more: dict[str, Any]) -> None:
    options = {
        "auth_type": "aws_iam",
        "role_id": "r",
        "key_id": "AKIAOFOPTION",
        "secret_id": "s",
        "region": "eu-west-1",
    }
    ours, theirs = (signers(rig, backend) for backend in backends(rig, **options, **more))
    assert ours == theirs == ["AKIAOFOPTION"]


def test_listed_options_of_other_releases(rig: VaultRig) -> None:
    ours, theirs = VaultBackend(token="t", cache_approle_token=True), Official(token="t", cache_approle_token=True)
    assert ours.options["cache_approle_token"] is True
    with pytest.raises(TypeError):
        theirs.get_variable("x")
    with pytest.raises(ConfigurationError, match="did you mean 'mount_point'"):
        VaultBackend(token="t", mountpoint="x")
    del rig
