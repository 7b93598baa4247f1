"""``airflow-secrets check`` where the store as a whole gives no answer: one fault, one cure, and no more logins than a read."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend
from airflow_providers_secrets.cli import check, findings
from airflow_providers_secrets.cli.masking import shown_value
from airflow_providers_secrets.lookup import answers
from airflow_providers_secrets.lookup.shared_cache import directory
from airflow_providers_secrets.stores.aws.parameter_store import ParameterStore
from airflow_providers_secrets.testing.rig import PATIENT
from tests.cli.conftest import Command, connecting, path_of, prefixes, using
from tests.conftest import RIGS
from tests.rigs import PAGE, Rig, running
from tests.rigs.aws import aws_error
from tests.rigs.azure import AzureRig
from tests.rigs.google import Accounts, GoogleRestRig
from tests.rigs.redis_fleet import RedisServer
from tests.rigs.vault import VaultRig
from tests.support.sharing import KEY

GOOGLES = "Replace the credentials: whoever issues the tokens refuses them."

Refusing = tuple[list[str], Callable[[], int], str]
"""The arguments of a backend whose login is refused, how many logins there were so far, and the cure."""


def arguments(rig: Rig, **options: Any) -> list[str]:
    return ["--backend", rig.class_path, "--kwargs", json.dumps({**rig.options(), **options})]


@pytest.fixture(params=["vault", "azure", "google"])
def refusing(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    if request.param == "vault":
        vault: VaultRig = running(RIGS["vault-openbao"])
        cure = "Check the credentials, role, 'auth_mount_point' and 'namespace' of the login."
        yield arguments(vault, secret_id="S3cr3t"), lambda: len(vault.logins), cure
    elif request.param == "azure":
        azure: AzureRig = running(RIGS["azure"])
        cure = "Fix the credential that the backend's options name; if they name none, set 'credential'."
        yield arguments(azure, client_secret="S3cr3t"), lambda: len(azure.entra.logins), cure
    else:
        google: GoogleRestRig = running(RIGS["google-rest"])
        monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
        accounts = Accounts(google.server, tmp_path)
        given = {"transport": "rest", "endpoint": google.url, "project_id": "p"}
        given["gcp_credential_config_file"] = json.dumps(accounts.federation("S3cr3t"))
        at = ["--backend", google.class_path, "--kwargs", json.dumps(given)]
        yield at, lambda: accounts.asked.count("/v1/token"), GOOGLES
        accounts.stop()


def test_a_refused_login_is_one_fault_with_one_cure(command: Command, refusing: Refusing) -> None:
    at, logins, cure = refusing
    before = logins()
    said = command("get", "var", "x", *at)
    of_get = logins() - before
    assert (said.code, of_get > 0) == (2, True), said.everything
    answers.reset_after_fork()  # in a shell, each is a process of its own
    before = logins()
    said = command("check", "--listing", "--connection", "x", "--variable", "y", *at)
    assert (said.code, said.out.count("✗"), said.out.count(cure)) == (2, 1, 1), said.everything
    assert said.out.endswith("unhealthy: 1 fault\n")
    assert logins() - before == of_get
    for left in ("variables", "config", "connection 'x'", "variable 'y'"):
        assert f"· {left}: no answer for the same reason\n" in said.out, said.out
    assert "identity: " not in said.out
    assert "S3cr3t" not in said.everything


@pytest.mark.parametrize("name", ["vault", "azure"])
def test_a_healthy_store_is_logged_in_at_once(
    command: Command, request: pytest.FixtureRequest, base: str, name: str
) -> None:
    """Whatever else is looked at: one login."""
    rig = request.getfixturevalue(name)

    def logins() -> int:
        if name == "azure":
            return len(rig.entra.logins)
        # Vault's identity is asked for below the same path as a login.
        return len([path for path in rig.logins if path != "/v1/auth/token/lookup-self"])

    before = logins()
    said = command("check", "--listing", "--variable", "y", *arguments(rig, **prefixes(rig, base)))
    assert "✓ variables: may list; nothing there (" in said.out, said.everything
    assert logins() - before == 1


def test_keys_that_aws_does_not_know_are_one_fault(command: Command, ssm: Rig, base: str) -> None:
    at = arguments(ssm, **prefixes(ssm, base), service_config=connecting(ssm)["service_config"])
    with ssm.answering(aws_error("UnrecognizedClientException")):
        said = command("check", "--listing", "--connection", "x", *at)
    assert (said.code, said.out.count("✗")) == (2, 1), said.everything
    assert said.out.count("Replace the access key: AWS does not know it.") == 1, said.out
    assert "S3cr3t" not in said.everything


def test_a_truth_value_is_no_credential(command: Command, vault: VaultRig) -> None:
    report = command("check", "-o", "json", *arguments(vault, cache_approle_token=True)).json
    values = {option["option"]: option["value"] for option in report["options"]}
    assert (values["cache_approle_token"], values["secret_id"]) == ("true", "***")


class Acme(ParameterStore):
    """A store of another package, which has its SDK by an extra that is also one here."""

    distribution = "acme-airflow"


class AcmeBackend(SystemsManagerParameterStoreBackend):
    """The backend of a store of another package."""

    store = "Acme"
    stores, _, module = __name__.rpartition(".")
    store_class = f"{module}:{Acme.__name__}"


def test_the_versions_of_a_store_of_another_package(
    command: Command, ssm: Rig, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ["--backend", f"{__name__}.AcmeBackend", *arguments(ssm, **prefixes(ssm, base))[2:]]
    versions = command("check", "-o", "json", *at).json["versions"]
    assert versions.pop("acme-airflow") == "not installed"
    metadata = tmp_path / "acme_airflow-1.2.dist-info" / "METADATA"
    metadata.parent.mkdir()
    needed = ('boto3>=1; extra == "aws"', "requests>=2 ; extra == 'web'", "tenacity")
    lines = [
        "Metadata-Version: 2.1",
        "Name: acme-airflow",
        "Version: 1.2",
        *(f"Requires-Dist: {one}" for one in needed),
    ]
    metadata.write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    own = {"acme-airflow": "1.2", "boto3": importlib.metadata.version("boto3")}
    assert command("check", "-o", "json", *at).json["versions"] == {**versions, **own}


COMPARE = "Check that the name is right, and the account, region, project, vault, mount or namespace"


def test_the_defaults_are_folded_between_options(command: Command, ssm: Rig, base: str) -> None:
    said = command("check", *using(ssm, **prefixes(ssm, base)))
    lines = said.out.partition("\ndefaults: ")[2].partition("\n\n")[0].splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= check.LONGEST_LINE
    shown = dict(one.split(" ", 1) for line in lines for one in line.strip().rstrip(",").split(", "))
    assert shown | {"cache_ttl": "60", "assume_role_method": "assume_role", "on_invalid": "next"} == shown


def test_plain_findings_are_lines_of_three_columns(command: Command, ssm: Rig, base: str) -> None:
    at = arguments(ssm, **prefixes(ssm, base), shared_cache=None, cache_ttl=0)
    said = command("check", "--variable", "x", "-o", "plain", *at)
    lines = [line.split("\t") for line in said.out.splitlines()]
    off = ["advice", "cache: off (cache_ttl 0), so every lookup asks the store", "Set cache_ttl, 60 for example."]
    assert off in lines, said.everything
    assert (said.code, {len(line) for line in lines}) == (1, {3}), said.everything
    assert {line[0] for line in lines} == {"fine", "advice", "fault"}
    assert lines[-1][::2] == ["fault", f"{COMPARE}; or create it: airflow-secrets put."]
    chain = {"backends": [{"backend": "env"}, {"backend": "aws_ssm", "kwargs": json.loads(at[-1])}]}
    said = command("check", "--variable", "x", "-o", "plain", "--backend", "chain", "--kwargs", json.dumps(chain))
    lines = [line.split("\t") for line in said.out.splitlines()]
    assert (said.code, {len(line) for line in lines}) == (1, {3}), said.everything
    assert lines[0] == ["fine", "member 1 (env): asked for connections, variables", ""]
    assert lines[1][1].startswith("member 2 (aws_ssm): ")


def test_an_option_that_only_the_sdk_can_judge_is_one_fault(command: Command, ssm: Rig, base: str) -> None:
    at = arguments(ssm, **prefixes(ssm, base), config_kwargs={"retrys": 3})
    told = (
        "option 'config_kwargs' holds 'retrys', which botocore.config.Config does not accept; did you mean 'retries'?"
    )
    for line in (["get", "var", "x"], ["list", "var"]):
        said = command(*line, *at)
        assert (said.code, said.err) == (2, f"airflow-secrets {line[0]}: {told}\n"), said.everything
    said = command("check", "--listing", "--connection", "x", *at)
    assert (said.code, said.out.count("✗"), said.out.count(told)) == (2, 1, 1), said.everything
    said = command("explain", "var", "x", "--no-metastore", *at)
    assert (said.code, said.out.count(told)) == (2, 1), said.everything
    chain = {"backends": [{"backend": ssm.class_path, "kwargs": json.loads(at[-1])}]}
    said = command("check", "--connection", "x", "--backend", "chain", "--kwargs", json.dumps(chain))
    assert (said.code, said.out.count(told)) == (2, 2), said.everything


def test_a_store_that_is_away_is_asked_once(command: Command, rig: Rig, base: str) -> None:
    """Not for each prefix once more: an operator would wait for every time-out."""
    at = arguments(rig, **prefixes(rig, base), max_attempts=1)
    with rig.fault("reset"), rig.counted() as asked:
        said = command("check", "--connection", "x", *at)
    assert (said.code, said.out.count("✗")) == (3, 1), said.everything
    assert len([name for name in asked if name != PAGE]) <= 1
    assert "· variables: no answer for the same reason\n" in said.out
    assert re.search(r"^! .* is asked at https?://\S+$", said.out, re.MULTILINE), said.out


def test_of_several_faults_the_gravest_is_the_exit_code(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe that only wants to know whether the store answers reads nothing else."""
    monkeypatch.setattr(findings, "pattern_seconds", {"quick": 0.05, "slow": 0.06, "endless": float("inf")}.__getitem__)
    slow = {"connections_lookup_pattern": "slow", "variables_exclude_pattern": "endless"}
    at = arguments(ssm, **prefixes(ssm, base), **PATIENT, max_attempts=1, config_lookup_pattern="quick", **slow)
    said = command("check", *at)
    assert (said.code, said.out.count("✗")) == (1, 2), said.everything
    assert "✗ connections_lookup_pattern 'slow' took 0.06 s on an id of 512 characters\n" in said.out
    assert "✗ variables_exclude_pattern 'endless' never ended on an id of 512 characters\n" in said.out
    said = command("check", *at, "-o", "json")
    assert (said.code, said.json["verdict"]) == (1, "unhealthy"), said.everything
    with ssm.fault("reset"):
        said = command("check", *at)
    assert (said.code, said.out.count("✗")) == (3, 3), said.everything


UNMOUNTED = "with 'mount_point' null an id starts with its mount: MOUNT/ID"


@pytest.fixture
def unmounted(vault: VaultRig) -> list[str]:
    """The arguments of a backend whose ids start with their mount."""
    return arguments(vault, mount_point=None)


def test_paths_that_cannot_be_tried_are_told(command: Command, vault: VaultRig, unmounted: list[str]) -> None:
    said = command("check", *unmounted)
    cure = "Look one up: --connection or --variable."
    assert said.out.count(f"! connections, variables, config: not tried: {UNMOUNTED}") == 1, said.everything
    assert (said.code, said.out.count(cure)) == (0, 1), said.everything
    said = command("check", "--variable", "unmounted", *unmounted)
    assert (said.code, f"✗ variable 'unmounted': not looked up: {UNMOUNTED}" in said.out) == (1, True), said.everything
    vault.write("secret/variables/tried", {"value": "x"})
    said = command("check", "--variable", "secret/tried", *unmounted)
    assert (said.code, "✓ variable 'secret/tried': found" in said.out) == (0, True), said.everything


def test_a_store_that_is_away_is_a_fault_where_no_path_can_be_tried(command: Command, vault: VaultRig) -> None:
    said = command("check", *arguments(vault, mount_point=None, url="http://127.0.0.1:1", max_attempts=1))
    assert (said.code, said.out.count("✗ identity: ")) == (3, 1), said.everything


def test_an_empty_list_of_paths_is_told_as_off(command: Command, vault: VaultRig) -> None:
    said = command("check", "--variable", "x", *arguments(vault, variables_path=[]))
    assert "✓ variables: off, never looked up here" in said.out, said.everything
    assert "✗ variable 'x': not looked up: lookups of variables are off: variables_path is empty" in said.out
    said = command("list", "var", *arguments(vault, variables_path=[]))
    assert (said.code, said.err) == (
        2,
        "airflow-secrets list: Lookups of variables are off: variables_path is empty.\n",
    )


def test_an_id_without_its_mount_is_told_as_not_asked_for(
    command: Command, vault: VaultRig, unmounted: list[str], tmp_path: Path
) -> None:
    vault.proxy.requests.clear()
    told = f"HashiCorp Vault is not asked for 'unmounted' (variables): {UNMOUNTED}.\n"
    for line in (["put", "var", "unmounted", "--stdin"], ["delete", "var", "unmounted", "--yes"]):
        said = command(*line, *unmounted, stdin="x")
        assert (said.code, said.err) == (2, f"airflow-secrets {line[0]}: {told}"), said.everything
    said = command("get", "var", "unmounted", *unmounted)
    assert (said.code, said.err) == (
        2,
        f"airflow-secrets get: HashiCorp Vault is not asked for 'unmounted': {UNMOUNTED}.\n",
    )
    said = command("explain", "var", "unmounted", "--no-metastore", *unmounted)
    assert f"the store is not asked: {UNMOUNTED}" in said.out, said.everything
    file = tmp_path / "variables.json"
    file.write_text('{"variables": {"unmounted": "x"}}')
    to = [word.replace("--backend", "--to").replace("--kwargs", "--to-kwargs") for word in unmounted]
    said = command("copy", "--from", f"file:{file}", *to, "-o", "json")
    assert [(item["state"], item["reason"]) for item in said.json] == [("invalid", UNMOUNTED)], said.everything
    assert vault.calls == []


def test_what_has_no_paths_of_its_own_is_not_listed(command: Command, vault: VaultRig, unmounted: list[str]) -> None:
    vault.proxy.requests.clear()
    said = command("list", "var", *unmounted)
    told = f"HashiCorp Vault cannot list: {UNMOUNTED}."
    assert (said.code, said.err) == (2, f"airflow-secrets list: {told}\n"), said.everything
    said = command("check", "--listing", *unmounted)
    assert (said.code, said.out.count(told)) == (2, 1), said.everything
    said = command("policy", *unmounted)
    assert (said.code, said.err) == (2, f"airflow-secrets policy: No policy follows from the options: {UNMOUNTED}.\n")
    assert vault.calls == []


def test_denials_are_told_apart(command: Command, rig: Rig, base: str) -> None:
    """Each prefix needs a right of its own."""
    with rig.fault("denied"):
        said = command("check", *arguments(rig, **prefixes(rig, base)))
    assert (said.code, said.out.count("✗")) == (3, 3), said.everything


def test_a_shared_cache_that_is_away_is_a_fault(command: Command, ssm: Rig) -> None:
    at = arguments(ssm, shared_cache="redis://:S3cr3t@127.0.0.1:1/0", shared_cache_key=KEY)
    said = command("check", *at)
    assert (said.code, "unhealthy: 1 fault" in said.out) == (1, True), said.everything
    assert "✗ cache: The shared cache in redis://127.0.0.1:1/0 cannot be used: it refuses the connection" in said.out
    assert "    Check host and port, and that it runs." in said.out
    assert "S3cr3t" not in said.everything


def test_a_store_that_is_away_is_told_with_its_address(
    command: Command, ssm: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come from the environment, where nobody looks for it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    said = command("check", *arguments(ssm, endpoint_url=None, max_attempts=1))
    assert said.code == 3, said.everything
    assert "! AWS SSM Parameter Store is asked at http://127.0.0.1:1\n" in said.out


@pytest.mark.parametrize(
    ("skew", "told"),
    [
        (3.0, "clock: within 3 s of the store's"),
        (300.0, "clock: this host's is 300 s behind the store's"),
        (-300.0, "clock: this host's is 300 s ahead of the store's"),
    ],
)
def test_a_clock_that_is_wrong_is_a_fault(
    command: Command, ssm: Rig, monkeypatch: pytest.MonkeyPatch, skew: float, told: str
) -> None:
    monkeypatch.setattr(findings, "clock_skew", lambda _: skew)
    said = command("check", *using(ssm))
    assert told in said.out
    assert re.search(r"✓ identity: arn:\S+, account \d{12}, region \S+ \(", said.out), said.everything
    assert said.code == (1 if abs(skew) > findings.MAX_SKEW else 0), said.everything


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("url", "https://u:S3cr3t@S3cr3t@h:1/p?token=S3cr3t&db=1", "https://***@h:1/p?token=***&db=1"),
        ("shared_cache", ["redis://:S3cr3t@h", "redis://h"], "redis://***@h, redis://h"),
        ("config_kwargs", {"proxies": {"https": "http://u:S3cr3t@h"}, "retries": {}}, "{proxies: …, retries: …}"),
        *(
            (name, "S3cr3t", "***")
            for name in (
                "aws_access_key_id",
                "secret_id",
                "keyfile_dict",
                "jwt",
                "client_assertion",
                "certificate_data",
            )
        ),
        *(
            (name, "/run/x", "/run/x")
            for name in ("secret_id_path", "kubernetes_jwt_path", "token_path", "keyfile_path")
        ),
        ("use_token", True, "true"),
        ("token_ttl", 1.5, "1.5"),
        ("token", None, "null"),
    ],
)
def test_an_options_value_is_shown_without_what_may_be_a_credential(name: str, value: Any, shown: str) -> None:
    assert shown_value(name, value) == shown


def test_the_clock_is_asked_by_the_authorities_that_the_options_name(tmp_path: Path) -> None:
    bundle = str(tmp_path / "bundle.pem")
    for name in ("verify", "connection_verify"):
        for given, told in ((True, (None, None)), (bundle, (bundle, None)), (str(tmp_path), (None, str(tmp_path)))):
            assert findings._authorities({name: given}) == told


def test_no_parameter_of_an_address_is_shown_that_may_be_a_misspelt_password(command: Command, ssm: Rig) -> None:
    shown = "ssl_ca_certs=/ca.pem&db=1"
    for unknown in ("passwd", "auth", "ssl_password", "credentials"):
        place = f"rediss://u:S3cr3t@127.0.0.1:1/0?{shown}&{unknown}=S3cr3t"
        said = command("check", *arguments(ssm, shared_cache=place, shared_cache_key=KEY))
        assert "S3cr3t" not in said.everything
    place = "redis://127.0.0.1:1/0?db=1&passwd=S3cr3t"
    said = command("check", *arguments(ssm, shared_cache=place, shared_cache_key=KEY))
    assert "redis://127.0.0.1:1/0?db=1&passwd=***" in said.everything
    assert f", redis {importlib.metadata.version('redis')}\n" in said.out


def test_a_shared_cache_that_takes_no_writes_is_a_fault(command: Command, ssm: Rig, tmp_path: Path) -> None:
    server = RedisServer()
    try:
        user = functools.partial(
            server.client.acl_setuser, "reader", enabled=True, nopass=True, keys=["airflow-secrets:*"]
        )
        user(commands=["+getrange"])
        place = [f"file://{tmp_path}/shared", f"redis://reader:any@127.0.0.1:{server.port}/0?socket_timeout=15"]
        said = command("check", *arguments(ssm, shared_cache=place, shared_cache_key=KEY))
        assert (said.code, "the user may not do this" in said.out) == (1, True), said.everything
        user(commands=["+getrange", "+set"])
        answers.reset_after_fork()
        said = command("check", *arguments(ssm, shared_cache=place, shared_cache_key=KEY))
        assert (said.code, "✓ cache: shared in " in said.out) == (0, True), said.everything
    finally:
        server.stop()


def test_a_shared_cache_on_a_full_file_system_is_a_fault(
    command: Command, ssm: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = arguments(ssm, shared_cache=f"file://{tmp_path}/shared", shared_cache_key=KEY)
    with monkeypatch.context() as full:
        full.setattr(directory, "ROOM_LEFT", 1.0)  # no file system is that empty
        said = command("check", *at)
    assert (said.code, "cannot be used: its file system is full\n" in said.out) == (1, True), said.everything
    before = sorted(tmp_path.rglob("*"))
    answers.reset_after_fork()
    assert command("check", *at).code == 0
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and len(path.name) == 64] == []


@pytest.mark.usefixtures("default_directory_open_to_others")
def test_a_default_directory_that_is_open_to_others_is_a_fault(command: Command, ssm: Rig) -> None:
    said = command("check", *arguments(ssm, shared_cache="file", shared_cache_key=KEY))
    assert (said.code, "unhealthy: 1 fault" in said.out) == (1, True), said.everything
    assert "is open to other users" in said.out
    assert "    Restrict it: chmod 700." in said.out


@pytest.mark.parametrize("place", ["file", "redis://127.0.0.1:1/0"])
def test_a_shared_cache_without_a_key_keeps_nothing_from_working(
    command: Command, ssm: Rig, base: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As lookups take it: nothing is shared, and each is answered."""
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "")
    ssm.put(path_of(ssm, base, "variables", "x"), "S3cr3t")
    at = arguments(ssm, **prefixes(ssm, base), shared_cache=place)
    said = command("check", "--variable", "x", *at)
    assert (said.code, "\nhealthy\n" in said.out) == (0, True), said.everything
    assert "! cache: Option 'shared_cache' needs a key: [core] fernet_key holds no Fernet key\n    Set it" in said.out
    said = command("explain", "var", "x", "--no-metastore", *at)
    assert (said.code, "shared cache: not usable: Option 'shared_cache' needs a key" in said.out) == (0, True), said
    chain = {"backends": [{"backend": "aws_ssm", "kwargs": json.loads(at[-1])}]}
    said = command("explain", "var", "x", "--no-metastore", "--backend", "chain", "--kwargs", json.dumps(chain))
    assert (said.code, "shared cache: not usable" in said.out) == (0, True), said.everything
