"""What the AWS stores write, delete and list, and whom they say is asking; on moto, and by its rules where moto has none."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from airflow_providers_secrets.errors import (
    AccessDenied,
    InvalidSecret,
    LookupFailed,
    SecretNotFound,
    SecretRevoked,
    StoreUnavailable,
)
from airflow_providers_secrets.lookup import inventory, operations
from airflow_providers_secrets.lookup.access import StoreAccess, loaded_store
from airflow_providers_secrets.stores.aws import store as aws_store
from airflow_providers_secrets.stores.base import EXISTS, Identity, StoreError, Written, deadline
from airflow_providers_secrets.stores.capabilities import Deletes, Identifies, Lists, Writes
from airflow_providers_secrets.testing.lookups import Waits
from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from tests.rigs.aws import CREDENTIALS, REGION, AwsRig, SecretsManagerRig, SsmRig, aws_error


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, in either store's spelling."""
    return f"/airflow/variables/{uuid.uuid4()}"


def write(
    rig: AwsRig, name: str, text: str, *, only_if_absent: bool = False, settings: Mapping[str, str] = {}
) -> Written:
    """Write as the command does: classified, with the errors that a user sees."""
    return StoreAccess(rig.backend().config).call(
        name,
        30,
        lambda store, client: store.write(client, name, text, only_if_absent=only_if_absent, settings=settings),
        act="write",
    )


def delete(rig: AwsRig, name: str) -> None:
    def deleted(store: Any, client: Any) -> bool:
        store.delete(client, name)
        return True

    StoreAccess(rig.backend().config).call(name, 30, deleted, act="delete")


def asked(proxy: Proxy) -> list[str]:
    return [request.headers["X-Amz-Target"].rpartition(".")[2] for request in proxy.requests]


def test_the_stores_can_list_write_delete_and_identify(aws: AwsRig) -> None:
    store = loaded_store(aws.backend().config)
    for capability in (Lists, Writes, Deletes, Identifies):
        assert isinstance(store, capability)


def test_write_creates_then_writes_new_versions(aws: AwsRig, name: str) -> None:
    first = write(aws, name, "one")
    second = write(aws, name, "two")
    assert (first.created, second.created) == (True, False)
    assert first.version
    assert first.version != second.version
    prefix, _, secret_id = name.rpartition("/")
    assert aws.backend(variables_prefix=prefix).get_variable(secret_id) == "two"


def test_write_only_if_absent(aws: AwsRig, name: str) -> None:
    assert write(aws, name, "one", only_if_absent=True).created
    before = len(aws.proxy.requests)
    with pytest.raises(InvalidSecret, match=f"could not write {name!r}: it exists already. Choose"):
        write(aws, name, "S3cr3t-two", only_if_absent=True)
    assert len(aws.proxy.requests) - before == 1  # final: no attempt after it
    prefix, _, secret_id = name.rpartition("/")
    assert aws.backend(variables_prefix=prefix).get_variable(secret_id) == "one"


def test_a_name_that_somebody_creates_in_between_is_overwritten_all_the_same(aws: AwsRig, name: str) -> None:
    def reply(request: Request) -> None:
        if request.headers["X-Amz-Target"].endswith((".PutParameter", ".CreateSecret")) and not created:
            created.append(name)
            aws.put(name, "theirs")

    created: list[str] = []
    with aws.proxy.fault(reply):
        assert not write(aws, name, "ours").created
    prefix, _, secret_id = name.rpartition("/")
    assert (created, aws.backend(variables_prefix=prefix).get_variable(secret_id)) == ([name], "ours")


@pytest.mark.parametrize("only_if_absent", [False, True])
def test_a_write_whose_answer_is_lost_is_made_once(aws: AwsRig, name: str, only_if_absent: bool) -> None:
    """Nor is it told that the name exists already, which this very write created."""

    def reply(request: Request) -> Reply | None:
        changes = request.headers["X-Amz-Target"].endswith((".PutParameter", ".CreateSecret"))
        return Reply(reset=True, lost=True) if changes else None

    with aws.proxy.fault(reply), pytest.raises(StoreUnavailable, match="may have been written all the same"):
        write(aws, name, "once", only_if_absent=only_if_absent)
    prefix, _, secret_id = name.rpartition("/")
    assert aws.backend(variables_prefix=prefix).get_variable(secret_id) == "once"
    if aws.service == "ssm":
        assert described(aws, name)["Version"] == 1


@pytest.mark.parametrize("body", [b"[1]", b"{}"], ids=repr)
def test_a_write_whose_answer_is_of_another_form_is_not_repeated(aws: AwsRig, name: str, body: bytes) -> None:
    reply = Reply(200, body, {"Content-Type": "application/x-amz-json-1.1"})
    changes = ("PutParameter", "PutSecretValue", "CreateSecret")
    before = len(aws.proxy.requests)
    with aws.proxy.fault(lambda request: reply if request.headers["X-Amz-Target"].endswith(changes) else None):
        with pytest.raises(InvalidSecret, match="lead to AWS"):
            write(aws, name, "S3cr3t")
    assert len([one for one in asked(aws.proxy)[before:] if one in changes]) == 1


def test_an_existing_name_is_told_by_its_code_and_chains_nothing(aws: AwsRig, name: str) -> None:
    store = loaded_store(aws.backend().config)
    client = store.connect()
    store.write(client, name, "one")
    with pytest.raises(StoreError) as raised:
        store.write(client, name, "S3cr3t", only_if_absent=True)
    assert EXISTS in raised.value.codes
    assert raised.value.__context__ is None


@pytest.mark.parametrize("act", ["write", "delete"])
def test_refusals_of_a_change_name_the_right_that_is_missing(aws: AwsRig, name: str, act: str) -> None:
    right = {
        ("ssm", "write"): "ssm:DescribeParameters",
        ("ssm", "delete"): "ssm:DeleteParameter",
        ("secretsmanager", "write"): "secretsmanager:PutSecretValue",
        ("secretsmanager", "delete"): "secretsmanager:DeleteSecret",
    }[aws.service, act]
    with aws.proxy.fault(aws_error("AccessDeniedException")), pytest.raises(AccessDenied, match=f"Allow .*{right}"):
        write(aws, name, "S3cr3t") if act == "write" else delete(aws, name)


@pytest.mark.parametrize("tags", ["owner", "=x", "a=b,c"])
def test_tags_that_are_none_are_refused_before_any_request(aws: AwsRig, name: str, tags: str) -> None:
    before = len(aws.proxy.requests)
    with pytest.raises(LookupFailed, match="KEY=VALUE"):
        write(aws, name, "x", settings={"tags": tags})
    assert len(aws.proxy.requests) == before


def test_secrets_manager_secret_that_is_no_text_exists(secrets_manager: SecretsManagerRig, name: str) -> None:
    """Who asks whether something would be replaced must not be told that nothing is there, or get an error."""
    secrets_manager.client.create_secret(Name=name, SecretBinary=b"S3cr3t")
    assert operations.exists(secrets_manager.backend(), name)


def test_delete(aws: AwsRig, name: str) -> None:
    write(aws, name, "x")
    delete(aws, name)
    prefix, _, secret_id = name.rpartition("/")
    backend = aws.backend(variables_prefix=prefix)
    if aws.service == "ssm":
        assert backend.get_variable(secret_id) is None
    else:
        with pytest.raises(SecretRevoked, match="restore"):
            backend.get_variable(secret_id)


def test_delete_of_what_is_not_there(aws: AwsRig, name: str) -> None:
    with pytest.raises(LookupError, match="could not delete"):
        delete(aws, name)


def test_every_write_setting_has_a_meaning(aws: AwsRig) -> None:
    settings = loaded_store(aws.backend().config).write_settings
    assert {"key_id", "description", "tags"} <= set(settings)
    assert all(settings.values())


# SSM.


def described(rig: SsmRig, name: str) -> dict[str, Any]:
    filters = [{"Key": "Name", "Option": "Equals", "Values": [name]}]
    (found,) = rig.client.describe_parameters(ParameterFilters=filters)["Parameters"]
    return found


def test_ssm_connection_is_written_by_whom_may_not_read(ssm: SsmRig) -> None:
    denied = aws_error("AccessDeniedException", 400)
    with ssm.proxy.fault(lambda request: denied if ".Get" in request.headers["X-Amz-Target"] else None):
        operations.write(ssm.backend(), "connections", f"written-{uuid.uuid4()}", "http://x")


def test_ssm_writes_a_secure_string_unless_told(ssm: SsmRig, name: str) -> None:
    write(ssm, name, "x")
    assert described(ssm, name)["Type"] == "SecureString"
    write(ssm, f"{name}-plain", "x", settings={"type": "String"})
    assert described(ssm, f"{name}-plain")["Type"] == "String"


@pytest.mark.parametrize(
    "before",
    [
        {"Type": "String", "Description": "why", "AllowedPattern": ".*"},
        {"Type": "SecureString", "KeyId": "alias/ours", "Description": "why", "Tier": "Advanced"},
        {"Type": "StringList"},
    ],
)
def test_ssm_new_version_keeps_what_the_parameter_had(ssm: SsmRig, name: str, before: dict[str, str]) -> None:
    ssm.client.put_parameter(Name=name, Value="one", Tags=[{"Key": "a", "Value": "b"}], **before)
    was = described(ssm, name)
    written = write(ssm, name, "two")
    assert (written.created, written.version) == (False, "2")
    now = described(ssm, name)
    changing = {"Version", "LastModifiedDate"}
    assert {k: v for k, v in now.items() if k not in changing} == {k: v for k, v in was.items() if k not in changing}
    tags = ssm.client.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)["TagList"]
    assert tags == [{"Key": "a", "Value": "b"}]
    # What the store says, whatever moto keeps by itself.
    sent = json.loads(ssm.proxy.requests[-1].body)
    assert before.items() <= sent.items()
    assert sent["Overwrite"] is True


def test_ssm_settings_of_a_new_parameter(ssm: SsmRig, name: str) -> None:
    settings = {"key_id": "alias/ours", "tier": "Advanced", "description": "why", "tags": "owner=data, stage=prod"}
    write(ssm, name, "x", settings=settings)
    found = described(ssm, name)
    assert (found["KeyId"], found["Tier"], found["Description"]) == ("alias/ours", "Advanced", "why")
    tags = ssm.client.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)["TagList"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"owner": "data", "stage": "prod"}


def test_ssm_tags_are_for_a_new_parameter_alone(ssm: SsmRig, name: str) -> None:
    """AWS refuses them beside ``Overwrite``."""
    write(ssm, name, "one", settings={"tags": "a=b"})
    assert not write(ssm, name, "two", settings={"tags": "c=d"}).created
    assert "Tags" not in json.loads(ssm.proxy.requests[-1].body)


@pytest.mark.usefixtures("pauses")
def test_ssm_too_many_updates_are_waited_for(ssm: SsmRig, name: str) -> None:
    before = len(ssm.proxy.requests)
    with ssm.answering(aws_error("TooManyUpdates")), pytest.raises(StoreUnavailable):
        write(ssm, name, "x", only_if_absent=True)
    assert asked(ssm.proxy)[before:] == ["PutParameter"] * 3


def test_ssm_setting_changes_an_existing_parameter(ssm: SsmRig, name: str) -> None:
    write(ssm, name, "x", settings={"type": "String"})
    write(ssm, name, "y", settings={"type": "SecureString", "key_id": "alias/ours"})
    assert (described(ssm, name)["Type"], described(ssm, name)["KeyId"]) == ("SecureString", "alias/ours")


def test_ssm_string_has_no_key_of_the_secure_string_before(ssm: SsmRig, name: str) -> None:
    """AWS refuses a key beside any other type."""
    ssm.client.put_parameter(Name=name, Value="one", Type="SecureString", KeyId="alias/ours")
    write(ssm, name, "two", settings={"type": "String"})
    sent = json.loads(ssm.proxy.requests[-1].body)
    assert (sent["Type"], "KeyId" in sent) == ("String", False)


def test_ssm_new_version_of_a_parameter_at_the_root_keeps_what_it_had_without_its_slash(ssm: SsmRig) -> None:
    """To AWS ``/x`` and ``x`` are one parameter, which is described by the name that it was created with.

    moto describes it by either.
    """
    name = f"rootless-{uuid.uuid4()}"
    ssm.client.put_parameter(Name=name, Value="one", Type="String", Description="why")
    assert not write(ssm, f"/{name}", "two").created
    sent = json.loads(ssm.proxy.requests[-1].body)
    assert (sent["Type"], sent["Description"], sent["Overwrite"]) == ("String", "why", True)
    assert described_by(ssm.proxy.requests[-2]) == [f"/{name}", name]


def test_ssm_parameter_in_a_hierarchy_is_described_by_its_only_name(ssm: SsmRig, name: str) -> None:
    write(ssm, name, "x")
    assert described_by(ssm.proxy.requests[-2]) == [name]


def described_by(request: Request) -> list[str]:
    (given,) = json.loads(request.body)["ParameterFilters"]
    assert (given["Key"], given["Option"]) == ("Name", "Equals")
    names: list[str] = given["Values"]
    return names


def test_ssm_looks_for_a_parameter_on_every_page(ssm: SsmRig, name: str) -> None:
    """DescribeParameters may answer with empty pages before the one that holds the parameter."""
    page = json.dumps({"Parameters": [], "NextToken": "0"}).encode()
    replies: list[Reply | None] = [Reply(200, page, {"Content-Type": "application/x-amz-json-1.1"})]
    ssm.client.put_parameter(Name=name, Value="one", Type="String")
    with ssm.proxy.fault(lambda _: replies.pop() if replies else None):
        assert not write(ssm, name, "two").created
    assert described(ssm, name)["Type"] == "String"


# Secrets Manager.


def test_secrets_manager_new_version_keeps_what_the_secret_had(secrets_manager: SecretsManagerRig, name: str) -> None:
    tags = [{"Key": "a", "Value": "b"}]
    secrets_manager.client.create_secret(
        Name=name, SecretString="one", Description="why", KmsKeyId="alias/k", Tags=tags
    )
    write(secrets_manager, name, "two")
    found = secrets_manager.client.describe_secret(SecretId=name)
    assert (found["Description"], found["KmsKeyId"], found["Tags"]) == ("why", "alias/k", tags)
    assert asked(secrets_manager.proxy)[-1] == "PutSecretValue"


def test_secrets_manager_settings(secrets_manager: SecretsManagerRig, name: str) -> None:
    write(secrets_manager, name, "x", settings={"key_id": "alias/k", "description": "why", "tags": "owner=data"})
    found = secrets_manager.client.describe_secret(SecretId=name)
    assert (found["Description"], found["KmsKeyId"]) == ("why", "alias/k")
    assert found["Tags"] == [{"Key": "owner", "Value": "data"}]
    assert not write(secrets_manager, name, "y", settings={"description": "better"}).created
    found = secrets_manager.client.describe_secret(SecretId=name)
    assert (found["Description"], found["KmsKeyId"]) == ("better", "alias/k")
    assert secrets_manager.client.get_secret_value(SecretId=name)["SecretString"] == "y"


@pytest.mark.usefixtures("pauses")
def test_secrets_manager_account_that_is_full_is_not_asked_again(secrets_manager: SecretsManagerRig, name: str) -> None:
    before = len(secrets_manager.proxy.requests)
    with secrets_manager.answering(aws_error("LimitExceededException")), pytest.raises(InvalidSecret):
        write(secrets_manager, name, "x", only_if_absent=True)
    assert asked(secrets_manager.proxy)[before:] == ["CreateSecret"]


@pytest.mark.parametrize("only_if_absent", [False, True])
def test_secrets_manager_secret_scheduled_for_deletion_says_restore(
    secrets_manager: SecretsManagerRig, name: str, only_if_absent: bool
) -> None:
    write(secrets_manager, name, "x")
    delete(secrets_manager, name)
    assert "DeletedDate" in secrets_manager.client.describe_secret(SecretId=name)

    def reply(request: Any) -> Reply | None:
        """AWS refuses both changes in these words; moto accepts the one, and says of the other that it exists."""
        looks = request.headers["X-Amz-Target"].endswith("DescribeSecret")
        return None if looks else aws_error("InvalidRequestException")

    with secrets_manager.proxy.fault(reply), pytest.raises(SecretRevoked, match=r"for deletion\. Restore it first"):
        write(secrets_manager, name, "S3cr3t", only_if_absent=only_if_absent)


def test_secrets_manager_secret_of_another_service_is_not_called_deleted(
    secrets_manager: SecretsManagerRig, name: str
) -> None:
    def reply(request: Any) -> Reply:
        if request.headers["X-Amz-Target"].endswith("DescribeSecret"):
            body = json.dumps({"Name": name, "OwningService": "rds"}).encode()
            return Reply(200, body, {"Content-Type": "application/x-amz-json-1.1"})
        return aws_error("InvalidRequestException")

    with (
        secrets_manager.proxy.fault(reply),
        pytest.raises(AccessDenied, match=r"managed by another service\. Change it"),
    ):
        write(secrets_manager, name, "x")


def test_secrets_manager_refusal_without_the_right_to_look_keeps_its_code(
    secrets_manager: SecretsManagerRig, name: str
) -> None:
    def reply(request: Any) -> Reply:
        looks = request.headers["X-Amz-Target"].endswith("DescribeSecret")
        return aws_error("AccessDeniedException" if looks else "InvalidRequestException")

    with secrets_manager.proxy.fault(reply), pytest.raises(SecretRevoked, match="InvalidRequestException"):
        write(secrets_manager, name, "x")


# Listings.


def test_listing_has_version_and_date(aws: AwsRig, name: str) -> None:
    write(aws, f"{name}/one", "x")
    store = loaded_store(aws.backend().config)
    (listed,) = store.listing(store.connect(), f"{name}/")
    assert (listed.name, listed.text) == (f"{name}/one", "x")
    assert listed.version
    assert listed.version == (write(aws, f"{name}/two", "x").version if aws.service == "ssm" else listed.version)
    assert listed.changed is not None
    assert abs(listed.changed - dt.datetime.now(dt.timezone.utc)) < dt.timedelta(hours=1)


def page_of(aws: AwsRig, **more: Any) -> Reply:
    body = {"Parameters" if aws.service == "ssm" else "SecretValues": [], **more}
    return Reply(200, json.dumps(body).encode(), {"Content-Type": "application/x-amz-json-1.1"})


def listing(aws: AwsRig) -> list[Any]:
    store = loaded_store(aws.backend().config)
    return list(store.listing(store.connect(), "/airflow/variables/"))


def test_a_page_token_that_repeats_is_an_error(aws: AwsRig) -> None:
    with aws.proxy.fault(page_of(aws, NextToken="S3cr3t")), aws.counted() as calls:
        with pytest.raises(StoreError, match="the listing does not end") as raised:
            listing(aws)
    assert len(calls) == 2
    assert "S3cr3t" not in str(raised.value)


def test_page_tokens_without_end_are_an_error(aws: AwsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_store, "MAX_PAGES", 5)
    tokens = iter(range(100))
    with aws.proxy.fault(lambda _: page_of(aws, NextToken=str(next(tokens)))):
        with pytest.raises(StoreError, match="the listing does not end"):
            listing(aws)
    assert next(tokens) == 5


def test_a_listing_ends_when_nobody_waits_for_it(aws: AwsRig) -> None:
    tokens = iter(range(100))
    store = loaded_store(aws.backend().config)
    client = store.connect()
    token = deadline.set(float("-inf"))
    try:
        with aws.proxy.fault(lambda _: page_of(aws, NextToken=str(next(tokens)))), pytest.raises(TimeoutError):
            list(store.listing(client, "/airflow/variables/"))
    finally:
        deadline.reset(token)
    assert next(tokens) <= 1


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a listing ends after one name; attempts follow each other at once."""
    monkeypatch.setattr(inventory, "BATCH_SECONDS", -1.0)
    monkeypatch.setattr(StoreAccess, "_pause", lambda *_: 0.0)


def pages_of(aws: AwsRig, count: int, breaks: dict[int, int]) -> Callable[[Request], Reply]:
    """Answer with *count* pages of one name each; *breaks* tells how often the page of a number fails."""

    def reply(request: Request) -> Reply:
        page = int(json.loads(request.body).get("NextToken") or 0)
        if breaks.get(page, 0) > 0:
            breaks[page] -= 1
            return aws_error("InternalServerError", 500)
        field, prefix = (
            ("Parameters", "/airflow/variables/") if aws.service == "ssm" else ("SecretValues", "airflow/variables/")
        )
        body: dict[str, Any] = {field: [{"Name": f"{prefix}{page}", "Value": "x", "SecretString": "x"}]}
        more = {"NextToken": str(page + 1)} if page + 1 < count else {}
        return Reply(200, json.dumps({**body, **more}).encode(), {"Content-Type": "application/x-amz-json-1.1"})

    return reply


def test_listing_that_breaks_off_again_and_again_but_goes_on_is_whole(aws: AwsRig, one_at_a_time: None) -> None:
    backend = aws.backend(max_attempts=2)
    with aws.proxy.fault(pages_of(aws, 6, {2: 1, 3: 1, 4: 1, 5: 1})):
        found = [listed.secret_id for listed in inventory.listed_ids(backend, "variables")]
    assert found == ["0", "1", "2", "3", "4", "5"]


def test_listing_that_always_breaks_off_at_one_page_ends(aws: AwsRig, one_at_a_time: None) -> None:
    backend = aws.backend(max_attempts=2)
    with aws.proxy.fault(pages_of(aws, 6, {2: 1000})):
        with pytest.raises(StoreUnavailable, match="the listing broke off 2 times"):
            list(inventory.listed_ids(backend, "variables"))


def test_an_absence_that_is_told_on_a_later_page_does_not_end_a_listing(aws: AwsRig, one_at_a_time: None) -> None:
    """Whatever answers in the store's place: what is on the other pages would be taken for absent."""
    code = "ParameterNotFound" if aws.service == "ssm" else "ResourceNotFoundException"
    first = pages_of(aws, 3, {})

    def reply(request: Request) -> Reply:
        return aws_error(code, 400) if json.loads(request.body).get("NextToken") else first(request)

    backend = aws.backend()
    (prefix,) = backend.rule("variables").prefixes
    with aws.proxy.fault(reply):
        with pytest.raises(SecretNotFound, match=code):
            list(inventory.listed_ids(backend, "variables"))
        with pytest.raises(SecretNotFound, match=code):
            StoreAccess(backend.config).ask_for_all(backend.name_start(prefix), 30)


def test_a_listing_names_nothing_that_no_id_of_its_prefix_is(aws: AwsRig) -> None:
    start = aws.path("variables", "")
    with aws.proxy.fault(aws.page([start, f"{start}x", aws.path("connections", "x")], None)):
        assert [listed.secret_id for listed in inventory.listed_ids(aws.backend(), "variables")] == ["x"]


def test_a_step_of_a_listing_lasts_no_longer_than_a_lookup_or_than_what_is_left(aws: AwsRig, waits: Waits) -> None:
    # Of no other test: moto lists no prefix under which a secret is scheduled for deletion.
    backend = aws.backend(timeout=4, variables_prefix=aws.path("variables", f"steps-{uuid.uuid4()}"))
    for within, most in ((None, 4.0), (60.0, 4.0), (2.0, 2.0)):
        waits.granted.clear()
        list(inventory.listed_ids(backend, "variables", within))
        assert 0 < max(waits.granted) <= most
    with aws.counted() as calls:
        assert list(inventory.listed_ids(backend, "variables", 0.0)) == []
    assert calls == []


def test_each_operation_has_the_time_of_a_lookup(aws: AwsRig, sts: Proxy, waits: Waits) -> None:
    backend = aws.backend(timeout=4, service_config={"sts": {"endpoint_url": sts.url}})
    secret_id = f"timed-{uuid.uuid4()}"
    operations.write(backend, "variables", secret_id, "x")
    assert operations.exists(backend, operations.target_name(backend, "variables", secret_id))
    operations.delete(backend, "variables", secret_id)
    operations.identify(backend)
    assert waits.granted == [4.0] * 4


# Who is asking.


def identity(rig: AwsRig, sts: Proxy, **options: Any) -> Identity:
    backend = rig.backend(service_config={"sts": {"endpoint_url": sts.url}}, **options)
    return StoreAccess(backend.config).call("", 30, lambda store, client: store.identify(client), act="identify")


def test_identity(aws: AwsRig, sts: Proxy) -> None:
    found = identity(aws, sts)
    assert found.who.startswith("arn:aws:sts::123456789012:")
    assert found.details == {"account": "123456789012", "region": REGION}
    assert len(sts.requests) == 1
    assert CREDENTIALS["aws_secret_access_key"] not in repr(vars(type(found))) + repr(found) + str(found.details)


def test_identity_in_a_role_is_the_roles(aws: AwsRig, sts: Proxy) -> None:
    found = identity(aws, sts, role_arn="arn:aws:iam::123456789012:role/airflow")
    assert found.who.startswith("arn:aws:sts::123456789012:assumed-role/airflow/")
