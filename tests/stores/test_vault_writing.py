"""Writing, deleting, listing and identifying on Vault, and whose answers are filed where."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.backends._vault import NEEDED
from airflow_providers_secrets.backends.hashicorp_vault import VaultBackend
from airflow_providers_secrets.errors import LookupFailed, StoreUnavailable
from airflow_providers_secrets.lookup import access, answers, inventory, operations
from airflow_providers_secrets.lookup.shared_answers import SharedAnswers
from airflow_providers_secrets.stores import base, credential_files
from airflow_providers_secrets.stores.vault import identity
from airflow_providers_secrets.stores.vault import store as vault_store
from airflow_providers_secrets.stores.vault.store import BY_OPTIONS_ALONE, MAX_DEPTH, Vault
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs.openbao import ROOT_TOKEN
from tests.rigs.vault import VaultRig, asking, opened, vault_answer

CONN_URI = "postgres://u:p@h:5432/d"
CONN_JSON = {"conn_type": "mysql", "host": "h", "port": 3306, "extra": {"a": 1}, "description": "ä"}


@pytest.fixture(params=[2, 1, "auto"])
def backend(request: pytest.FixtureRequest, vault: VaultRig) -> VaultBackend:
    """A backend that may write, on each version of the engine."""
    mount = "writing1" if request.param == 1 else "writing2"
    vault.server.engine(mount, 1 if request.param == 1 else 2)
    for path in ("variables/w", "connections/w"):
        vault.server.api("DELETE", f"{mount}/{path}" if request.param == 1 else f"{mount}/metadata/{path}")
    return asking(url=vault.proxy.url, token=ROOT_TOKEN, mount_point=mount, kv_engine_version=request.param)


def stored(store: Vault, client: Any, name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(store.fetch(client, name).text)
    return data


def name_of(backend: VaultBackend, kind: Any) -> str:
    (name,) = backend.plan(kind, "w").names
    return name


@pytest.mark.parametrize("text", ["x", "", " ", "5", "null", '{"a": 1}', "é\n✓", '"'])
@pytest.mark.parametrize("kind", ["variables", "config"])
def test_encode_is_the_inverse_of_decode(vault: VaultRig, kind: Any, text: str) -> None:
    backend = asking(url=vault.proxy.url, token="t")
    assert backend.decode(kind, backend.encode(kind, text)) == text


def test_encode_is_the_inverse_of_decode_for_connections(vault: VaultRig) -> None:
    backend = asking(url=vault.proxy.url, token="t")
    assert backend.decode("connections", backend.encode("connections", CONN_URI)) == CONN_URI
    given = backend.decode("connections", backend.encode("connections", json.dumps(CONN_JSON)))
    assert json.loads(given) == CONN_JSON


def test_a_connection_that_is_written_is_the_one_that_is_read(backend: VaultBackend) -> None:
    """Whatever was there: fields and ``conn_uri`` replace each other, and no password of the old one survives."""
    store, client = opened(backend)
    name = name_of(backend, "connections")
    texts = [CONN_URI, json.dumps({**CONN_JSON, "password": "old"}), json.dumps(CONN_JSON), CONN_URI]
    for number, text in enumerate(texts):
        written = store.write(client, name, backend.encode("connections", text))
        assert written.created == (number == 0)
        given = backend.get_conn_value("w")
        assert given is not None
        assert json.loads(given) == json.loads(text) if text.startswith("{") else given == text
    assert stored(store, client, name) == {"conn_uri": CONN_URI}


def test_other_keys_of_a_secret_stay(backend: VaultBackend) -> None:
    store, client = opened(backend)
    name = name_of(backend, "variables")
    first = store.write(client, name, '{"value": "1", "owner": "team", "gone": "x"}')
    store._put(client, name, {**stored(store, client, name), "none": None}, int(first.version or 0))
    second = store.write(client, name, '{"value": "2", "gone": null}')
    assert stored(store, client, name) == {"value": "2", "owner": "team", "none": None}
    assert (first.created, second.created) == (True, False)
    if backend.options["kv_engine_version"] != "1":
        assert int(second.version or 0) == int(first.version or 0) + 2


def test_only_if_absent(backend: VaultBackend) -> None:
    store, client = opened(backend)
    name = name_of(backend, "variables")
    assert store.write(client, name, '{"value": "1"}', only_if_absent=True).created
    with pytest.raises(base.StoreError) as raised:
        store.write(client, name, '{"value": "2"}', only_if_absent=True)
    assert raised.value.codes == (base.EXISTS,)
    assert stored(store, client, name) == {"value": "1"}


@pytest.mark.parametrize("only_if_absent", [False, True])
def test_a_write_whose_answer_is_lost_is_made_once(
    backend: VaultBackend, vault: VaultRig, only_if_absent: bool
) -> None:
    """Nor is it told that the name exists already, which this very write created."""
    changes: list[str] = []

    def reply(request: Request) -> Reply | None:
        if request.method not in ("POST", "PUT", "PATCH"):
            return None
        changes.append(request.path)
        return Reply(reset=True, lost=True)

    with vault.proxy.fault(reply), pytest.raises(StoreUnavailable, match="may have been written all the same"):
        operations.write(backend, "variables", "w", "once", only_if_absent=only_if_absent)
    assert len(changes) == 1
    assert backend.get_variable("w") == "once"


def test_a_delete_whose_answer_is_lost_is_not_told_as_absent(backend: VaultBackend, vault: VaultRig) -> None:
    operations.write(backend, "variables", "w", "x")
    lost = Reply(reset=True, lost=True)
    with vault.proxy.fault(lambda request: lost if request.method == "DELETE" else None):
        with pytest.raises(StoreUnavailable, match="may have been deleted all the same"):
            operations.delete(backend, "variables", "w")


def test_a_connection_that_was_deleted_can_be_written_again(backend: VaultBackend) -> None:
    operations.write(backend, "connections", "w", CONN_URI)
    operations.delete(backend, "connections", "w")
    operations.write(backend, "connections", "w", CONN_URI)
    assert backend.get_conn_value("w") == CONN_URI


def test_a_connection_that_exists_is_told_so_whatever_else_it_holds(backend: VaultBackend) -> None:
    store, client = opened(backend)
    store.write(client, name_of(backend, "connections"), '{"conn_type": "http", "owner": "data"}')
    with pytest.raises(operations.AlreadyExists):
        operations.write(backend, "connections", "w", json.dumps(CONN_JSON), only_if_absent=True)


def test_a_connection_is_not_written_beside_fields_that_could_not_be_read(
    backend: VaultBackend, vault: VaultRig
) -> None:
    """They may spoil it."""
    store, client = opened(backend)
    name = name_of(backend, "connections")
    store.write(client, name, '{"conn_type": "http", "owner": "data"}')
    path = name.rpartition("/")[2]
    replies = iter([Reply(400, b'{"errors": ["no"]}')])
    with vault.proxy.fault(lambda request: next(replies, None) if request.path.endswith(f"/{path}") else None):
        with pytest.raises(LookupFailed):
            operations.write(backend, "connections", "w", json.dumps(CONN_JSON))
    assert stored(store, client, name) == {"conn_type": "http", "owner": "data"}


def test_deleted_is_gone_and_can_be_written_again(backend: VaultBackend) -> None:
    store, client = opened(backend)
    name = name_of(backend, "variables")
    with pytest.raises(base.StoreError) as raised:
        store.delete(client, name)
    assert base.ABSENT in raised.value.codes
    store.write(client, name, '{"value": "1", "owner": "team"}')
    store.delete(client, name)
    with pytest.raises(base.StoreError) as raised:
        store.fetch(client, name)
    assert {base.ABSENT, "deleted"} & set(raised.value.codes)
    with pytest.raises(base.StoreError):
        store.delete(client, name)
    assert store.write(client, name, '{"value": "2"}').created
    assert stored(store, client, name) == {"value": "2"}


def test_a_connection_that_was_deleted_can_be_written_anew(backend: VaultBackend) -> None:
    """Nothing of the old one is there to go with the new one."""
    operations.write(backend, "connections", "deleted-and-new", "http://old")
    operations.delete(backend, "connections", "deleted-and-new")
    operations.write(backend, "connections", "deleted-and-new", "http://new")
    assert backend.get_conn_value("deleted-and-new") == "http://new"


def test_delete_can_be_undone_on_version_2(vault: VaultRig) -> None:
    vault.server.engine("writing2", 2)
    backend = asking(url=vault.proxy.url, token=ROOT_TOKEN, mount_point="writing2")
    store, client = opened(backend)
    name = "writing2/variables/undone"
    version = store.write(client, name, '{"value": "1"}').version
    store.delete(client, name)
    vault.server.api("POST", "writing2/undelete/variables/undone", {"versions": [int(version or 0)]})
    assert backend.get_variable("undone") == "1"


def test_write_of_another_in_between_is_not_lost(vault: VaultRig) -> None:
    vault.server.engine("writing2", 2)
    store, client = opened(asking(url=vault.proxy.url, token=ROOT_TOKEN, mount_point="writing2"))
    name, path = "writing2/variables/raced", "writing2/data/variables/raced"
    store.write(client, name, '{"value": "1"}')
    others = iter([{"theirs": 1}, {"theirs": 2}])

    def overtaken(request: Request) -> None:
        if request.method == "POST" and (data := next(others, None)):
            vault.server.api("POST", path, {"data": data})

    with vault.proxy.fault(overtaken):
        store.write(client, name, '{"value": "2"}')
    assert stored(store, client, name) == {"theirs": 2, "value": "2"}

    def always(request: Request) -> None:
        if request.method == "POST":
            vault.server.api("POST", path, {"data": {"theirs": 3}})

    with vault.proxy.fault(always), pytest.raises(base.StoreError, match="others keep writing"):
        store.write(client, name, '{"value": "3"}')


def test_write_that_others_keep_overtaking_is_known_not_to_be_made(vault: VaultRig, pauses: list[float]) -> None:
    vault.server.engine("writing2", 2)
    backend = asking(url=vault.proxy.url, token=ROOT_TOKEN, mount_point="writing2")

    def always(request: Request) -> None:
        if request.method == "POST":
            vault.server.api("POST", "writing2/data/variables/raced", {"data": {"theirs": 3}})

    with vault.proxy.fault(always), pytest.raises(StoreUnavailable) as raised:
        operations.write(backend, "variables", "raced", "x")
    assert str(raised.value).endswith("others keep writing to it. Write again once others have finished.")
    assert len(pauses) == 2


def test_mount_that_demands_check_and_set(vault: VaultRig) -> None:
    vault.server.engine("strict2", 2)
    vault.server.api("POST", "strict2/config", {"cas_required": True})
    store, client = opened(asking(url=vault.proxy.url, token=ROOT_TOKEN, mount_point="strict2"))
    for value in ("1", "2"):
        store.write(client, "strict2/variables/w", json.dumps({"value": value}))
    assert stored(store, client, "strict2/variables/w") == {"value": "2"}


def test_refused_write_is_denied(vault: VaultRig) -> None:
    token = vault.server.api("POST", "auth/token/create", {"policies": ["default"]})["auth"]["client_token"]
    store, client = opened(asking(url=vault.proxy.url, token=token))
    for act in (
        lambda: store.write(client, "secret/variables/w", '{"value": "1"}'),
        lambda: store.delete(client, "secret/x"),
    ):
        with pytest.raises(base.StoreError) as raised:
            act()
        assert store.outcomes[raised.value.codes[-1]] is base.Outcome.DENIED


def test_identify_says_that_a_root_token_never_expires(vault: VaultRig) -> None:
    store, client = opened(asking(url=vault.proxy.url, auth_type="token", token=ROOT_TOKEN))
    assert store.identify(client).details["token lives"] == "for ever"


def test_identify_names_the_login_and_never_the_token(vault: VaultRig) -> None:
    store, client = opened(asking(**vault.options()))
    who = store.identify(client)
    assert who.who == "approle"
    assert who.details["login"] == "auth/approle/login"
    assert "everything-in-secret" in who.details["policies"]
    assert who.details["token lives"] in {"768 h", "767 h"}  # the server's default, and a moment later
    assert who.details["entity"]
    assert client._token.text not in str(who.details) + repr(who)


def test_identify_tells_the_entitys_policies_too(vault: VaultRig) -> None:
    about = {"display_name": "approle", "policies": ["default"], "identity_policies": ["team", "default"]}
    store, client = opened(asking(url=vault.proxy.url, auth_type="token", token=ROOT_TOKEN))
    with vault.proxy.fault(lambda request: vault_answer(about) if "lookup-self" in request.path else None):
        assert store.identify(client).details["policies"] == "default, team"


# Listings.


def test_listing_is_of_everything_below_and_nothing_beside(vault: VaultRig) -> None:
    vault.server.engine("listed", 2)
    for path in ("a/b/x", "a/b/y/z", "a/b/y/deep/er", "a/bc", "a/b", "c"):
        vault.server.api("POST", f"listed/data/{path}", {"data": {"value": "1"}})
    for strict in (False, True):
        store, client = opened(asking(url=vault.proxy.url, token=ROOT_TOKEN, mount_point="listed", strict_http=strict))
        listed = {
            prefix: sorted(one.name for one in store.listing(client, prefix))
            for prefix in ("listed/a/b/", "listed/a/b")
        }
        below = ["listed/a/b/x", "listed/a/b/y/deep/er", "listed/a/b/y/z"]
        assert listed == {"listed/a/b/": below, "listed/a/b": sorted([*below, "listed/a/bc", "listed/a/b"])}


def test_each_of_several_prefixes_is_listed_and_a_name_under_two_of_them_once(vault: VaultRig) -> None:
    for name in ("outer/a", "outer/inner/b", "other/c"):
        vault.put(f"secret/{name}", "x")
    backend = vault.backend(token=ROOT_TOKEN, auth_type="token", variables_path=["outer", "outer/inner", "other"])
    listed = [(one.secret_id, one.name) for one in inventory.listed_ids(backend, "variables")]
    assert sorted(listed) == [("a", "secret/outer/a"), ("c", "secret/other/c"), ("inner/b", "secret/outer/inner/b")]


@pytest.mark.parametrize("keys", [["again/"], ["../"], ["./"], ["/"], ["x/", "x/", "y"]], ids=repr)
def test_listing_of_folders_without_end_ends(keys: list[str]) -> None:
    endless = Proxy()
    with endless.fault(vault_answer({"keys": keys})):
        store, client = opened(asking(url=endless.url, token="t"))
        if keys[0] in ("../", "./", "/"):
            assert list(store.listing(client, "secret/variables/")) == []
        else:
            with pytest.raises(base.StoreError, match=r"more than .* folders"):
                list(store.listing(client, "secret/variables/"))
    assert len(endless.requests) <= MAX_DEPTH + 1
    endless.stop()


def test_listing_ends_after_so_many_folders(vault: VaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beside each other count, too."""
    monkeypatch.setattr(vault_store, "MAX_FOLDERS", 5)
    wide, narrow = vault_answer({"keys": [f"{number}/" for number in range(10)]}), vault_answer({"keys": ["x"]})
    store, client = opened(asking(url=vault.proxy.url, auth_type="token", token=ROOT_TOKEN))
    before = len(vault.proxy.requests)
    with vault.proxy.fault(lambda request: wide if request.path.rstrip("/").endswith("/metadata/wide") else narrow):
        with pytest.raises(base.StoreError, match="more than 5 folders"):
            list(store.listing(client, "secret/wide/"))
    assert len(vault.proxy.requests) - before == 5


@pytest.mark.parametrize("keys", ["S3cr3t", [1], None, {"a": "b"}], ids=repr)
def test_listing_that_is_none_is_malformed(vault: VaultRig, keys: Any) -> None:
    store, client = opened(asking(url=vault.proxy.url, token=ROOT_TOKEN))
    with vault.proxy.fault(vault_answer({"keys": keys})), pytest.raises(base.StoreError, match="no list"):
        list(store.listing(client, "secret/variables/"))


# Who asks.


def jwt_of(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"eyJhbGciOiJub25lIn0.{payload}.c2lnbmF0dXJl"


def asker(**options: Any) -> bytes:
    return access.store_of(asking(url="http://127.0.0.1:1", **options).config).asker()


def test_renewed_token_of_a_pod_is_of_the_same_and_anothers_is_not(tmp_path: Path) -> None:
    file = tmp_path / "token"
    options = {"auth_type": "kubernetes", "kubernetes_role": "r", "kubernetes_jwt_path": str(file)}
    pod = {"namespace": "n", "serviceaccount": {"name": "airflow"}, "pod": {"uid": "1"}}
    file.write_text(jwt_of(sub="airflow", exp=1, **{"kubernetes.io": {**pod, "warnafter": 1}}))
    first = asker(**options)
    file.write_text(
        jwt_of(sub="airflow", exp=2222, jti="x", uti="y", at_hash="z", **{"kubernetes.io": {**pod, "warnafter": 2222}})
    )
    assert asker(**options) == first
    file.write_text(jwt_of(sub="else", exp=2222))
    assert asker(**options) != first


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({}, "token_path"),
        ({"auth_type": "github"}, "token_path"),
        ({"auth_type": "jwt", "jwt_role": "r"}, "jwt_token_path"),
        ({"auth_type": "gcp", "role_id": "r"}, "gcp_key_path"),
        ({"auth_type": "cert"}, "cert"),
    ],
)
def test_file_that_changes_hands_is_noticed(tmp_path: Path, options: dict[str, Any], option: str) -> None:
    file = tmp_path / "credential"
    askers = [asker(**options, **{option: str(file)})]
    for content in ("one", "another"):
        file.write_text(content)
        askers.append(asker(**options, **{option: str(file)}))
    assert len(set(askers)) == 3
    assert b"another" not in askers[-1]


@pytest.mark.parametrize(
    ("auth_type", "variable"),
    [
        ("azure", "AZURE_FEDERATED_TOKEN_FILE"),
        ("gcp", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("aws_iam", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ],
)
def test_file_of_a_variable_that_changes_hands_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth_type: str, variable: str
) -> None:
    file = tmp_path / "credential"
    monkeypatch.setenv(variable, str(file))
    options = {"auth_type": auth_type, "role_id": "r", "azure_resource": "x"}
    file.write_text("one")
    first = asker(**options)
    file.write_text("another")
    assert asker(**options) != first


@pytest.mark.parametrize("auth_type", NEEDED)
def test_file_tells_who_asks_where_the_login_reads_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth_type: str
) -> None:
    """The others do without the module that reads files."""
    file = str(tmp_path / "credential")
    options = dict.fromkeys(identity._FILE_OPTION.values(), file)
    for variable in itertools.chain(*identity._FILE_VARIABLES.values()):
        monkeypatch.setenv(variable, file)
    digest = identity.credential_digest({**options, "auth_type": auth_type, "cert": (file,)})
    assert (digest == b"") == (auth_type in BY_OPTIONS_ALONE)


@pytest.mark.parametrize(
    ("auth_type", "variables"),
    [
        ("azure", ["AZURE_CLIENT_ID", "IDENTITY_ENDPOINT", "MSI_ENDPOINT"]),
        ("gcp", ["CLOUDSDK_CONFIG", "GCE_METADATA_HOST", "GOOGLE_APPLICATION_CREDENTIALS"]),
        ("aws_iam", ["AWS_PROFILE", "AWS_ROLE_ARN"]),
        ("token", ["VAULT_TOKEN", "VAULT_ADDR"]),
    ],
)
def test_variables_of_a_login_tell_who_asks(
    monkeypatch: pytest.MonkeyPatch, auth_type: str, variables: list[str]
) -> None:
    options = {"auth_type": auth_type, "role_id": "r", "azure_resource": "x", "token": "t"}
    answering = SharedAnswers(asking(url="http://127.0.0.1:1", **options).config)
    seen = {answering._identity()}
    for variable in variables:
        monkeypatch.setenv(variable, "/nowhere")
        seen.add(answering._identity())
    assert len(seen) == len(variables) + 1
    monkeypatch.setenv({"azure": "GOOGLE_X"}.get(auth_type, "AZURE_X"), "unrelated")
    assert answering._identity() in seen


@pytest.fixture
def two_tokens(vault: VaultRig) -> Iterator[list[str]]:
    """Two people's tokens: the second may not read what the first may."""
    vault.server.policy("whole", "secret/data/variables/*")
    vault.server.policy("less", "secret/data/variables/common")
    yield [
        vault.server.api("POST", "auth/token/create", {"policies": [policy]})["auth"]["client_token"]
        for policy in ("whole", "less")
    ]


def test_answers_are_filed_under_whom_they_were_given_to(
    vault: VaultRig, tmp_path: Path, two_tokens: list[str]
) -> None:
    """A token file changes hands; what its first owner read is not answered to the second, in any process."""
    vault.write("secret/variables/private", {"value": "S3cr3t"})
    file = tmp_path / "token"
    options = {
        "url": vault.proxy.url,
        "token_path": str(file),
        "shared_cache": f"file://{tmp_path}/shared",
        "shared_cache_key": "c" * 43 + "=",
        "cache_ttl": 60,
    }
    file.write_text(two_tokens[0])
    assert VaultBackend(**options).get_variable("private") == "S3cr3t"
    answers.reset_after_fork()  # another process
    with vault.counted() as calls:
        assert VaultBackend(**options).get_variable("private") == "S3cr3t"
    assert calls == []
    file.write_text(two_tokens[1])
    answers.reset_after_fork()
    with pytest.raises(access.LookupFailed, match="HTTP 403"):
        VaultBackend(**options).get_variable("private")


def test_answer_during_a_change_of_hands_is_not_filed(vault: VaultRig, tmp_path: Path, two_tokens: list[str]) -> None:
    vault.write("secret/variables/between", {"value": "S3cr3t"})
    file = tmp_path / "token"
    options = {
        "url": vault.proxy.url,
        "token_path": str(file),
        "shared_cache": f"file://{tmp_path}/shared",
        "shared_cache_key": "c" * 43 + "=",
        "cache_ttl": 60,
    }
    file.write_text(two_tokens[0])

    def changed_meanwhile(request: Request) -> None:
        file.write_text(two_tokens[1])

    with vault.proxy.fault(changed_meanwhile):
        assert VaultBackend(**options).get_variable("between") == "S3cr3t"
    for token in two_tokens:  # neither finds it
        file.write_text(token)
        answers.reset_after_fork()
        backend = VaultBackend(**options)
        with vault.counted() as calls:
            if token == two_tokens[0]:
                assert backend.get_variable("between") == "S3cr3t"
            else:
                with pytest.raises(access.LookupFailed):
                    backend.get_variable("between")
        assert calls


def test_process_that_goes_on_logs_in_as_whom_the_file_is_of_now(
    vault: VaultRig, tmp_path: Path, two_tokens: list[str]
) -> None:
    vault.write("secret/variables/common", {"value": "x"})
    file = tmp_path / "token"
    file.write_text(two_tokens[0])
    backend = asking(url=vault.proxy.url, token_path=str(file))
    vault.proxy.requests.clear()
    assert backend.get_variable("common") == "x"
    file.write_text(two_tokens[1])
    assert backend.get_variable("common") == "x"
    assert [request.headers["X-Vault-Token"] for request in vault.proxy.requests] == two_tokens


def test_file_is_read_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    asker(token_path=str(file))
    monkeypatch.setattr(credential_files, "open", None, raising=False)
    assert asker(token_path=str(file))
