"""Options: what counts as not given, what of other releases is known, and how contradictions are resolved."""

from __future__ import annotations

import importlib
import json
import re
import traceback
import warnings
from typing import Any

import pytest

from airflow_providers_secrets import options
from airflow_providers_secrets.errors import ConfigurationError

PREFIXES = ("connections", "variables", "config")
PATTERNS = dict.fromkeys((f"{kind}_lookup_pattern" for kind in PREFIXES), None)
AWS: dict[str, Any] = {
    **PATTERNS,
    **dict.fromkeys(
        (
            "aws_access_key_id",
            "aws_secret_access_key",
            "aws_session_token",
            "session_kwargs",
            "region_name",
            "profile_name",
            "verify",
            "endpoint_url",
            "role_arn",
            "assume_role_kwargs",
            "assume_role_with_saml",
            "assume_role_with_web_identity_federation",
            "assume_role_with_web_identity_token_file",
            "assume_role_with_web_identity_federation_audience",
            "config_kwargs",
            "service_config",
            "api_version",
            "use_ssl",
        )
    ),
    "assume_role_method": "assume_role",
}

OFFICIAL: dict[str, dict[str, Any]] = {
    "aws_ssm:SystemsManagerParameterStoreBackend": {
        **AWS,
        **{f"{kind}_prefix": f"/airflow/{kind}" for kind in PREFIXES},
    },
    "aws_secrets_manager:SecretsManagerBackend": {
        **AWS,
        **{f"{kind}_prefix": f"airflow/{kind}" for kind in PREFIXES},
        "sep": "/",
        "extra_conn_words": None,
    },
    "hashicorp_vault:VaultBackend": {
        **{f"{kind}_path": kind for kind in PREFIXES},
        **dict.fromkeys(
            (
                "url",
                "auth_mount_point",
                "token",
                "token_path",
                "username",
                "password",
                "key_id",
                "secret_id",
                "role_id",
                "assume_role_kwargs",
                "region",
                "kubernetes_role",
                "gcp_key_path",
                "gcp_keyfile_dict",
                "gcp_scopes",
                "azure_tenant_id",
                "azure_resource",
                "radius_host",
                "radius_secret",
                "radius_port",
                "jwt_role",
                "jwt_token",
                "jwt_token_path",
                "global_secrets_path",
                # of hvac.Client
                "verify",
                "cert",
                "proxies",
                "namespace",
            )
        ),
        "use_team_secrets_path": True,
        "auth_type": "token",
        "mount_point": "secret",
        "kv_engine_version": 2,
        "kubernetes_jwt_path": "/var/run/secrets/kubernetes.io/serviceaccount/token",
    },
    "gcp_secret_manager:CloudSecretManagerBackend": {
        **{f"{kind}_prefix": f"airflow-{kind}" for kind in PREFIXES},
        **dict.fromkeys(
            (
                "gcp_keyfile_dict",
                "gcp_key_path",
                "gcp_credential_config_file",
                "gcp_scopes",
                "project_id",
                "impersonation_chain",
            )
        ),
        "sep": "-",
    },
    "azure_key_vault:AzureKeyVaultBackend": {
        **{f"{kind}_prefix": f"airflow-{kind}" for kind in PREFIXES},
        **dict.fromkeys(
            (
                "vault_url",
                "tenant_id",
                "client_id",
                "client_secret",
                "managed_identity_client_id",
                "workload_identity_tenant_id",
            ),
            "",
        ),
        "sep": "-",
    },
    "kubernetes_secrets:KubernetesSecretsBackend": {
        "namespace": None,
        "connections_label": "airflow.apache.org/connection-id",
        "variables_label": "airflow.apache.org/variable-key",
        "config_label": "airflow.apache.org/config-key",
        "team_label": "airflow.apache.org/team",
        **{f"{kind}_data_key": "value" for kind in PREFIXES},
    },
}
"""The official classes' options with their official defaults: amazon 9.39.0, hashicorp 4.8.4, google 22.8.0,
microsoft-azure 15.2.1, cncf-kubernetes 10.25.0."""

MAY_BE_EMPTY = {
    "sep",
    "global_secrets_path",
    *(f"{kind}_{what}" for kind in PREFIXES for what in ("prefix", "path", "label")),
}
NULL_BY_EMPTY = {"mount_point", "team_label"}
"""Options whose null is a value of its own, which an empty text stands for, as officially."""

EACH = [(backend, name) for backend, official in OFFICIAL.items() for name in official]


def given(backend: str, **kwargs: Any) -> dict[str, Any]:
    """The options that a backend of these *kwargs* runs on."""
    module, _, name = backend.partition(":")
    backend_class = getattr(importlib.import_module(f"airflow_providers_secrets.backends.{module}"), name)
    if module == "azure_key_vault":
        kwargs = {"vault_url": "https://x.vault.azure.net", **kwargs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found: dict[str, Any] = backend_class(**kwargs).options
    paths = {
        name: (value,)
        for name, value in found.items()
        if name in MAY_BE_EMPTY and name.endswith("_path") and isinstance(value, str)
    }
    return {**found, **paths}  # a path stands for a list of one


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_TOKEN", "x")


@pytest.mark.parametrize(("backend", "name"), EACH)
def test_official_default_is_the_default(backend: str, name: str) -> None:
    default = OFFICIAL[backend][name]
    if name == "vault_url":
        pytest.skip("any test of Azure names a vault")
    assert given(backend, **{name: default}) == given(backend)


@pytest.mark.parametrize(("backend", "name"), [(backend, name) for backend, name in EACH if name not in MAY_BE_EMPTY])
def test_empty_means_not_given(backend: str, name: str) -> None:
    for empty in ("", "{}", {}, [], "null"):
        if name == "vault_url":
            assert given(backend, vault_url=empty)[name] in (None, "")
        elif name in NULL_BY_EMPTY:
            assert given(backend, **{name: empty})[name] is None
        else:
            assert given(backend, **{name: empty}) == given(backend)


@pytest.mark.parametrize(("backend", "name"), [(backend, name) for backend, name in EACH if name in MAY_BE_EMPTY])
def test_prefixes_and_separators_may_be_empty(backend: str, name: str) -> None:
    assert given(backend, **{name: ""})[name] in ("", ("",))


@pytest.mark.parametrize("backend", OFFICIAL)
@pytest.mark.parametrize("name", ["cache_ttl", "timeout", "shared_cache", "preload", "on_denied", "unknown_fields"])
def test_empty_means_not_given_for_options_of_every_backend(backend: str, name: str) -> None:
    assert given(backend, **{name: ""}) == given(backend)


@pytest.mark.parametrize("backend", OFFICIAL)
def test_unknown_fields_are_dropped_where_the_official_class_drops_them(backend: str) -> None:
    assert given(backend)["unknown_fields"] == ("drop" if backend.startswith("aws_secrets_manager") else "refuse")


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, names in options.OTHER_RELEASES.items() for name in names]
)
def test_option_of_another_release_is_ignored_with_the_reason(family: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"'{name}' is ignored: ") as warned:
        assert options.parse("Backend", (), {name: "S3cr3t"}, family or "aws") == {}
    assert "S3cr3t" not in str(warned[0].message)
    if family:
        with pytest.raises(ConfigurationError, match=f"unknown option '{name}'"):
            options.parse("Backend", (), {name: "x"}, "another")


@pytest.mark.parametrize("value", ["[1]", {"pasword": ["x"]}, {"password": "x"}, {"password": [1]}])
def test_unusable_words_for_fields(value: Any) -> None:
    with pytest.raises(ValueError, match=r"object|known: |list of words"):
        options.field_words(value)


@pytest.mark.parametrize("value", [1e20, "1e20", 10**400, options.LONGEST_LIFETIME + 1, "inf", "nan", -1])
def test_no_lifetime_is_longer_than_a_clock_can_tell(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="'max_stale' must be a number of seconds, zero or more"):
        given("aws_ssm:SystemsManagerParameterStoreBackend", max_stale=value)
    assert options.seconds(options.LONGEST_LIFETIME) == options.LONGEST_LIFETIME


@pytest.mark.parametrize("value", ["connections,x", '["connections"', '{"connections": 1}', ["secrets"], "[" * 100_000])
def test_what_may_be_in_a_list_of_kinds_is_told(value: Any) -> None:
    told = r"option 'preload' must be a list of any of 'connections', 'variables', 'config'\.$"
    with pytest.raises(ConfigurationError, match=told):
        given("aws_ssm:SystemsManagerParameterStoreBackend", preload=value)


@pytest.mark.parametrize(
    "value",
    [["connections", "config"], ("connections", "config"), '["connections", "config"]', "connections, config"],
    ids=["list", "tuple", "json", "commas"],
)
def test_a_list_may_be_written_in_any_of_these_forms(value: Any) -> None:
    assert given("aws_ssm:SystemsManagerParameterStoreBackend", preload=value)["preload"] == (
        "connections",
        "config",
    )


@pytest.mark.parametrize("value", ["a,b", '"a","b"', '["a", "b"]', "[a, b]", " a , b "])
def test_several_in_text_may_be_in_brackets_or_quotation_marks(value: str) -> None:
    """As templates of Helm and Terraform leave them."""
    azure = given("azure_key_vault:AzureKeyVaultBackend", additionally_allowed_tenants=value)
    assert azure["additionally_allowed_tenants"] == ("a", "b")


@pytest.mark.parametrize(
    ("backend", "option"),
    [
        ("azure_key_vault:AzureKeyVaultBackend", "connection_cert"),
        ("hashicorp_vault:VaultBackend", "cert"),
    ],
)
def test_a_certificate_and_its_key_may_be_json_text(backend: str, option: str) -> None:
    """As ``AIRFLOW__SECRETS__BACKEND_KWARG__…`` passes them."""
    assert given(backend, **{option: '["/c.pem", "/k.pem"]'})[option] == ("/c.pem", "/k.pem")
    with pytest.raises(ConfigurationError, match="must be a path, or a list of two: certificate and key"):
        given(backend, **{option: '["/c.pem", "/k.pem", "/x.pem"]'})


@pytest.mark.parametrize(
    ("backend", "option"),
    [
        ("gcp_secret_manager:CloudSecretManagerBackend", "gcp_scopes"),
        ("gcp_secret_manager:CloudSecretManagerBackend", "impersonation_chain"),
        ("hashicorp_vault:VaultBackend", "connections_path"),
    ],
)
def test_a_list_that_is_nested_too_deeply_is_told(backend: str, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"option '{option}' is not valid JSON"):
        given(backend, **{option: "[" * 100_000})


def test_an_option_of_another_package_never_shows_its_value() -> None:
    """Whatever its coercion raises, and also in what an error tracker sends."""
    declared = [options.Option("token", lambda value: {"a": 1}[value])]
    with pytest.raises(ConfigurationError, match=r"Ours: option 'token' cannot be read\.$") as raised:
        options.parse("Ours", declared, {"token": "S3cr3t"})
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


@pytest.mark.parametrize("value", [1e12, 10**400, options.LONGEST_TIMEOUT + 1, 0, "nan"])
def test_no_time_out_is_longer_than_a_socket_takes(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="'connect_timeout' must be a number of seconds above zero"):
        given("aws_ssm:SystemsManagerParameterStoreBackend", connect_timeout=value)
    assert options.positive_seconds(options.LONGEST_TIMEOUT) == options.LONGEST_TIMEOUT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("variables_lookup_pattern", "a{99999999999}"),
        ("variables_lookup_pattern", "(" * 100_000),
        ("extra_conn_words", '{"host":' * 100_000),
    ],
)
def test_what_overwhelms_a_parser_is_an_error_of_the_option(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"option '{name}' is not "):
        given("aws_ssm:SystemsManagerParameterStoreBackend", **{name: value})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (" file ", ("file",)),
        ("FILE:///Dir", ("file:///Dir",)),
        ("file:///d/", ("file:///d",)),
        ("file:///d//e/./", ("file:///d/e",)),
        ("file:///my%20dir/what%3F", ("file:///my dir/what?",)),
        ("REDIS://Host:1/0", ("redis://Host:1/0",)),
        ([" Rediss+Cluster://h "], ("rediss+cluster://h",)),
        ("FILE:///d, REDIS://h", ("file:///d", "redis://h")),
        (["file:///d", "file:///d/"], ("file:///d",)),
        ("redis://h", ("redis://h",)),
        ("redis://h/", ("redis://h/",)),
        ("rediss://u:p@h:6379/15/", ("rediss://u:p@h:6379/15/",)),
        ("redis://h//5", ("redis://h//5",)),
        ("redis://h?db=2", ("redis://h?db=2",)),
        ("unix:///run/redis/1/2?db=2", ("unix:///run/redis/1/2?db=2",)),
        ("redis+cluster://h:1,i:2/0", ("redis+cluster://h:1,i:2/0",)),
        ("redis+sentinel://h:1,i:2/service", ("redis+sentinel://h:1,i:2/service",)),
        ("rediss+sentinel://u:p@h:1,i:2/service/3", ("rediss+sentinel://u:p@h:1,i:2/service/3",)),
    ],
)
def test_a_place_is_read_as_it_is_checked(written: Any, read: tuple[str, ...]) -> None:
    assert options.cache_locations(written) == read


@pytest.mark.parametrize(
    "where", ["file:///d?x=1", "file:///d%00", "file:///.", "file:///%2F", "file:d", "redis://h/\n0"]
)
def test_a_place_that_would_be_another_one_is_refused(where: str) -> None:
    with pytest.raises(ValueError, match="must be 'file'"):
        options.cache_locations(where)


@pytest.mark.parametrize("where", ["file:///d#x", "redis://h/0#", "redis://h/0?socket_timeout=1#x", "unix:///d/s#0"])
def test_a_place_with_a_fragment_is_refused(where: str) -> None:
    with pytest.raises(ValueError, match="write it as %23"):
        options.cache_locations(where)


@pytest.mark.parametrize(
    "where",
    [
        "redis://h/S3cr3t", "redis://h/1/2", "redis://h/-1", "redis://h/1_0", "rediss://h/prod?db=1",
        "redis+cluster://h/prod", "redis+sentinel://h/0/service", "redis+sentinel://h/service/0/1",
        "redis+sentinel://h/service//5", ["file", "redis://h/prod"],
    ],
)  # fmt: skip
def test_a_database_that_would_be_another_one_is_refused(where: Any) -> None:
    with pytest.raises(ConfigurationError, match="'shared_cache' must name the database by one whole number") as raised:
        given("aws_ssm:SystemsManagerParameterStoreBackend", shared_cache=where)
    assert "S3cr3t" not in str(raised.value)


def test_a_sentinel_without_a_service_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 'file'"):
        options.cache_locations("redis+sentinel://h//0")


@pytest.mark.parametrize("value", [1, "4095", 0, -4096, True, "much"])
def test_a_room_in_which_no_file_fits_is_refused(value: Any) -> None:
    """Nothing would be shared, and nothing say so."""
    with pytest.raises(ConfigurationError, match=r"'shared_cache_max_bytes' must be .* at least 4096"):
        given("aws_ssm:SystemsManagerParameterStoreBackend", shared_cache_max_bytes=value)
    assert options.room("4096") == 4096


@pytest.mark.parametrize(
    ("backend", "given"),
    [
        ("hashicorp_vault.VaultBackend", {"url": "https://vault.example.com:82000"}),
        ("hashicorp_vault.VaultBackend", {"url": "https://[vault.example.com"}),
        ("gcp_secret_manager.CloudSecretManagerBackend", {"endpoint": "https://google.example.com:x"}),
        ("azure_key_vault.AzureKeyVaultBackend", {"vault_url": "https://azure.example.com:70000"}),
    ],
)
def test_an_address_with_a_port_that_is_none(backend: str, given: dict[str, str]) -> None:
    """It is told at once, and not by whatever meets it first."""
    module, name = backend.split(".")
    made = getattr(importlib.import_module(f"airflow_providers_secrets.backends.{module}"), name)
    with pytest.raises(ConfigurationError, match=f"option '{next(iter(given))}' has an invalid host or port"):
        made(**given)


PROXIED: list[tuple[str, dict[str, Any]]] = [
    ("hashicorp_vault:VaultBackend", {"token": "t"}),
    ("azure_key_vault:AzureKeyVaultBackend", {"vault_url": "https://v.vault.azure.net"}),
]


@pytest.mark.parametrize(("backend", "login"), PROXIED, ids=[name for name, _ in PROXIED])
@pytest.mark.parametrize(
    "proxies",
    [
        5,
        ["S3cr3t"],
        {"https": 5},
        {"https": True},
        {"https": ["S3cr3t"]},
        {"https": {"S3cr3t": 1}},
        {"https": "https://"},
        {"https": "/S3cr3t"},
        {"https": "ftp://S3cr3t"},
        {"https": "http://proxy:99999"},
        {"https": "http://u:S3cr3t/@proxy:3128"},
        {"https": "http://u:S3cr3t@[::1"},
        {"https": "http://u:S3cr3t@proxy\u2100"},
        {"https": "http://pro xy:3128"},
        {"https": "http://proxy:3128\n"},
        {"S3cr3t": "http://proxy:3128"},
        {"https://": "http://proxy:3128"},
        {"no_proxy": ["S3cr3t"]},
    ],
    ids=repr,
)
def test_proxies_that_no_request_could_use_are_refused(backend: str, login: dict[str, str], proxies: Any) -> None:
    with pytest.raises(ConfigurationError, match="option 'proxies' ") as raised:
        given(backend, **login, proxies=proxies)
    assert "S3cr3t" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(("backend", "login"), PROXIED, ids=[name for name, _ in PROXIED])
@pytest.mark.parametrize(
    "proxies",
    [
        {"https": "http://proxy:3128", "http": None},
        {"https": "http://user:p%40ss@proxy:3128/"},
        {"https://v.vault.azure.net": "socks5h://[::1]:1080"},
        {"all": "proxy:3128", "no_proxy": "localhost,10.0.0.0/8"},
        {"https": "http://user:my pass@proxy:3128"},
        {"https": "//proxy:3128"},
        {"https": ""},
    ],
    ids=repr,
)
def test_proxies_are_passed_on_as_they_are(backend: str, login: dict[str, str], proxies: Any) -> None:
    for written in (proxies, json.dumps(proxies)):
        assert given(backend, **login, proxies=written)["proxies"] == proxies


@pytest.mark.parametrize(
    ("backend", "options", "named"),
    [
        ("aws_secrets_manager:SecretsManagerBackend", {"sep": "a\nb"}, "'sep' holds 'a\\nb'"),
        ("aws_secrets_manager:SecretsManagerBackend", {"sep": " ", "connections_prefix": "a"}, "'sep' holds ' '"),
        ("aws_secrets_manager:SecretsManagerBackend", {"sep": "-", "variables_prefix": "a b"}, "'variables_prefix'"),
        ("gcp_secret_manager:CloudSecretManagerBackend", {"sep": "."}, "'sep' holds '.'"),
        ("gcp_secret_manager:CloudSecretManagerBackend", {"sep": "_", "config_prefix": "a.b"}, "'config_prefix'"),
        *(
            (
                "kubernetes_secrets:KubernetesSecretsBackend",
                {f"{kind}_data_key": key},
                f"'{kind}_data_key' must be a key",
            )
            for kind, key in (("connections", "a\nb"), ("variables", "a:b"), ("config", "a/b"), ("config", "k" * 254))
        ),
    ],
    ids=repr,
)
def test_what_makes_no_name_is_told_by_its_own_option(backend: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(f"option {named}")):
        given(backend, **options)
