"""The pages say what the code says: tables, messages, names, rights, versions; and their examples work."""

from __future__ import annotations

import ast
import importlib.util
import json
import pkgutil
import re
import shlex
import sys
import types
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import airflow_providers_secrets
from airflow_providers_secrets.cli import main, make_parser
from airflow_providers_secrets.errors import AccessDenied, StoreUnavailable
from airflow_providers_secrets.provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BACKENDS = [pkgutil.resolve_name(path) for path in get_provider_info()["secrets-backends"]]
STORES = [backend.store_class for backend in BACKENDS if hasattr(backend, "store_class")]


def text_of(page: str) -> str:
    return (ROOT / page if page == "README.md" else DOCS / page).read_text(encoding="utf-8")


def fenced(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def named(path: str) -> Any:
    module, _, name = path.replace(":", ".").rpartition(".")
    return getattr(importlib.import_module(module), name)


def ini(page: str) -> list[tuple[type, dict[str, Any]]]:
    found = (re.search(r"backend = (\S+)\nbackend_kwargs = (.*)", block, re.DOTALL) for block in fenced(page, "ini"))
    return [(named(match[1]), json.loads(match[2])) for match in found if match]


@pytest.fixture(scope="module")
def tables() -> Any:
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Tables and messages.


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_generated_tables_are_those_of_the_code(tables: Any, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- table: ") == text.count("<!-- end of table -->") == len(tables.REGION.findall(text))
    assert tables.written(text) == text, "run: python docs/tables.py"


def test_every_store_and_group_of_messages_has_its_table(tables: Any) -> None:
    text = text_of("messages.md")
    for path in STORES:
        assert f"<!-- table: codes {path.replace(':', ' ')} -->" in text
    for group in tables.GROUPS:
        assert f"<!-- table: messages {group} -->" in text


@pytest.mark.parametrize("path", STORES)
def test_every_advice_is_found_by_a_search(tables: Any, path: str) -> None:
    from airflow_providers_secrets.lookup import outcomes

    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    store = named(f"airflow_providers_secrets.stores.{path}")
    assert store.advice
    for advice in {*store.advice.values(), *outcomes.ADVICE.values()}:
        assert tables.cell(advice) in pages


def messages(refuse: Callable[[], Any]) -> str:
    with pytest.raises(Exception) as caught:  # whichever it is, its words count
        refuse()
    return str(caught.value)


AWS = "airflow_providers_secrets.backends.aws_ssm.SystemsManagerParameterStoreBackend"


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: named(AWS)(tiemout=1),
        lambda: named(AWS)(timeout=0),
        lambda: named(AWS)(preload="connection"),
        lambda: named(AWS)(shared_cache="file", cache_ttl=0),
        lambda: named(AWS)(connections_prefix="a b"),
        lambda: named("airflow_providers_secrets.backends.chain.ChainBackend")(backends=[{"backend": "aws_smm"}]),
        lambda: named(AWS)().decode("connections", '{"conn_typ": "http"}'),
        lambda: named(AWS)().decode("connections", "just-a-text"),
        lambda: named(AWS)().decode("connections", ""),
    ],
)
def test_a_message_that_is_printed_is_one_of_the_pages(refuse: Callable[[], Any]) -> None:
    fixed = [item for item in re.findall(r"^- `(.*)`$", text_of("messages.md"), re.MULTILINE) if len(item) > 5]
    patterns = [re.compile(".*".join(map(re.escape, item.split("…"))), re.DOTALL) for item in fixed]
    message = messages(refuse)
    # A message is made of one or two of the parts; the longest fixed part that is in it must be most of a sentence.
    longest = max(
        (len(item.replace("…", "")) for item, one in zip(fixed, patterns, strict=True) if one.search(message)),
        default=0,
    )
    assert longest >= 10, message


def test_what_the_package_raises_is_in_the_docs() -> None:
    """Whatever the error's class: some sentence of each `raise` is found by a search. `testing` speaks to developers."""
    package = Path(airflow_providers_secrets.__file__).parent
    written = " ".join(text_of("messages.md").split())
    missing, seen = [], 0
    for path in sorted(package.rglob("*.py")):
        if "testing" in path.relative_to(package).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            constants = [one.value for one in ast.walk(node.exc) if isinstance(one, ast.Constant)]
            said = [text.strip(" :'.") for text in constants if isinstance(text, str) and len(text.split()) > 1]
            seen += bool(said)
            if said and not any(text in written for text in said):
                missing.append(f"{path.relative_to(package)}:{node.lineno}: {said}")
    assert seen > 50
    assert not missing


@pytest.mark.parametrize(
    "line",
    [
        "log.warning('the moon is made of %s', what)",
        "print(f'the moon is made of {what}')",
        "raise AnyNewClass(f'the moon is made of {what}')",
        "def told(): return f'the moon is made of {what}'",
        "TOLD = ((Exception, 'the moon is made of cheese'),)",
        "told['of']['moon'] = 'the moon is made of cheese' if what else ''",
        "class Told:\n    moon = {'code': 'the moon is made of cheese'}",
    ],
)
def test_a_new_message_is_found_wherever_it_stands(tables: Any, tmp_path: Path, line: str) -> None:
    module = tmp_path / "new.py"
    module.write_text(f'"""The sun is made of fire."""\n{line}\n', encoding="utf-8")
    assert {text.replace("cheese", "…") for text in tables.in_module(module)} == {"the moon is made of …"}


def test_outcomes_and_errors_of_the_pages_exist() -> None:
    from airflow_providers_secrets import errors

    for name in re.findall(r"\| `(\w+)` \|$", text_of("errors.md"), re.MULTILINE):
        assert hasattr(errors, name)


# Examples.


@pytest.mark.parametrize("page", ["README.md", "start.md", "switching.md"])
def test_the_first_configuration_shares_its_answers(page: str) -> None:
    configurations = ini(page)
    assert configurations
    assert all(kwargs["shared_cache"] == "file" for _, kwargs in configurations)
    assert "/dev/shm/airflow-secrets-UID" in text_of(page) or "caching.md#shared-by-processes" in text_of(page)


@pytest.mark.parametrize("backend_class", [one for one in BACKENDS if hasattr(one, "store_class")])
def test_the_first_configuration_of_a_store_shares_its_answers_and_says_where(backend_class: type) -> None:
    (page,) = (page.name for page in PAGES if f" {backend_class.__name__} -->" in text_of(page.name))
    named_first, kwargs = ini(page)[0]
    assert named_first is backend_class
    assert kwargs["shared_cache"] == "file"
    assert "caching.md#shared-by-processes" in text_of(page)


VENDORS = {
    "ssm put-parameter": r"--name (?P<name>\S+) --value (?P<value>\S+)",
    "secretsmanager create-secret": r"--name (?P<name>\S+) --secret-string (?P<value>\S+)",
    "vault kv put": r"-mount=(?P<mount>\S+) (?P<name>\S+) (?P<field>\w+)=(?P<value>\S+)",
    "gcloud secrets create": r"printf %s (?P<value>\S+) .* create (?P<name>\S+) ",
    "az keyvault secret set": r"--name (?P<name>\S+) --value (?P<value>\S+)",
}


def test_what_the_vendors_commands_write_is_what_is_looked_up() -> None:
    """Kubernetes' are sent to an API server, by test_first_secret.py."""
    blocks = [block for block in fenced("start.md", "bash") if not block.startswith("kubectl ")]
    commands = [line for block in blocks for line in block.splitlines()]
    backends = [backend_class(**kwargs) for backend_class, kwargs in ini("start.md") if "namespace" not in kwargs]
    assert len(commands) == 2 * len(backends) == 2 * len(VENDORS)
    for backend, written in zip(backends, zip(commands[::2], commands[1::2], strict=True), strict=True):
        for (kind, secret_id), command in zip(
            (("connections", "smtp_default"), ("variables", "hello")), written, strict=True
        ):
            (pattern,) = (one for start, one in VENDORS.items() if start in command)
            match = re.search(pattern, command)
            assert match, command
            name, text = match["name"], match["value"]
            if "mount" in match.groupdict():
                name = f"{match['mount']}/{name}"
                text = json.dumps({match["field"]: text})
            (asked,) = backend.plan(kind, secret_id).names
            assert asked == name
            assert backend.decode(kind, text) == match["value"]


def test_commands_of_this_package_are_as_it_takes_them() -> None:
    parser = make_parser()
    lines = [
        line.partition("airflow-secrets ")[2]
        for page in ["README.md", *(page.name for page in PAGES)]
        for block in fenced(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if re.match(r"(printf .*\| )?airflow-secrets ", line)
    ]
    assert lines
    for line in lines:
        if line != "--version":
            parser.parse_args(shlex.split(line))


def test_environments_of_managed_platforms_construct() -> None:
    (values,) = (yaml.safe_load(block) for block in fenced("managed.md", "yaml"))
    secrets = values["config"]["secrets"]
    assert named(secrets["backend"])(**json.loads(secrets["backend_kwargs"]))
    (dockerfile,) = fenced("managed.md", "dockerfile")
    given = dict(re.findall(r"^ENV (\w+)='?(.*?)'?$", dockerfile, re.MULTILINE))
    assert named(given["AIRFLOW__SECRETS__BACKEND"])(**json.loads(given["AIRFLOW__SECRETS__BACKEND_KWARGS"]))
    (options,) = fenced("managed.md", "json")
    assert named("airflow_providers_secrets.backends.aws_secrets_manager.SecretsManagerBackend")(**json.loads(options))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_compiles(page: Path) -> None:
    for block in fenced(page.name, "python"):
        compile(block, page.name, "exec")


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    store, backend, rig = fenced("adding-a-store.md", "python")
    for name, source in (("stores.acme", store), ("backends.acme", backend), ("rig_of_acme", rig)):
        module = types.ModuleType(f"airflow_providers_secrets.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(source, f"adding-a-store.md, {name}", "exec"), module.__dict__)
    acme = sys.modules["airflow_providers_secrets.rig_of_acme"].AcmeRig()
    yield acme
    acme.stop()


def test_the_example_of_adding_a_store_is_a_store(acme: Any) -> None:
    """As a part of this package; test_testing.py holds it to the contract."""
    acme.put("airflow.variables.hello", "world")
    assert named(acme.class_path)(**acme.options()).get_variable("hello") == "world"
    assert acme.backend().get_variable("absent") is None
    with (
        acme.fault("denied"),
        pytest.raises(
            AccessDenied, match=r"Acme could not give 'airflow\.variables\.hello': HTTP 403\. Give the token"
        ),
    ):
        acme.backend().get_variable("hello")
    with acme.fault("proxy-404"), pytest.raises(StoreUnavailable):
        acme.backend().get_variable("hello")


def test_no_command_is_suggested_that_the_example_refuses(acme: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It can neither list nor be written to."""
    acme.put("airflow.connections.broken", "http://host:port")
    chosen = ["--backend", acme.class_path, "--kwargs", json.dumps(acme.options())]
    for words, told in (
        (["explain", "var", "absent", "--no-metastore"], "Airflow finds it nowhere."),
        (["explain", "conn", "broken", "--no-metastore"], "Rewrite it in Acme."),
        (["check", "--variable", "absent"], "or create it in Acme."),
    ):
        assert main([*words, *chosen]) != 0
        said = "".join(capsys.readouterr())
        assert told in said
        assert not re.search("airflow-secrets (list|put)", said), said


# Rights, versions, links.


@pytest.mark.parametrize("page", ["aws-ssm.md", "aws-secrets-manager.md"])
def test_terraform_allows_what_the_policy_allows(page: str) -> None:
    (policy,) = (json.loads(block) for block in fenced(page, "json"))
    by_json = [(statement["Action"], statement["Resource"]) for statement in policy["Statement"]]
    (terraform,) = fenced(page, "terraform")
    lists = re.findall(r"actions\s+= \[(.*?)\]\s+resources = \[(.*?)\]", terraform, re.DOTALL)
    by_terraform = [
        (re.findall(r'"(.*?)"', actions), re.findall(r'"(.*?)"', resources)) for actions, resources in lists
    ]
    assert by_terraform == [tuple([one] if isinstance(one, str) else one for one in pair) for pair in by_json]


def test_versions_are_those_of_the_package() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", pyproject)
    assert f"| Python | {', '.join(pythons)} |" in text_of("compatibility.md")
    needed = re.search(r'requires-python = ">=(3\.\d+),<3\.(\d+)"', pyproject)
    assert needed
    assert pythons[0] == needed[1]
    assert pythons[-1] == f"3.{int(needed[2]) - 1}"


def test_every_backend_has_a_row_in_switching_or_is_new() -> None:
    classes = re.findall(r"<br>`([\w.]+)`", text_of("switching.md"))
    assert {*classes, "airflow_providers_secrets.backends.chain.ChainBackend"} == set(
        get_provider_info()["secrets-backends"]
    )


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of("README.md"))
    assert links
    assert not [link for link in links if not (ROOT / link).is_file()]


def test_every_page_is_on_the_home_page() -> None:
    entries = set(
        re.findall(
            r"^([\w-]+)$", "".join(re.findall(r"```{toctree}\n(.*?)```", text_of("index.md"), re.DOTALL)), re.MULTILINE
        )
    )
    assert entries == {page.stem for page in PAGES} - {"index"}


@pytest.mark.parametrize("picture", sorted((DOCS / "_static").glob("*.svg")), ids=lambda path: path.stem)
def test_pictures_are_whole_and_load_nothing(picture: Path) -> None:
    root = ET.parse(picture).getroot()
    assert root.get("viewBox")
    assert "href" not in picture.read_text(encoding="utf-8")
