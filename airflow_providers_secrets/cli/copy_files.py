"""The files that ``copy`` reads: connections and variables as Airflow exports them, and lists of ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from airflow_providers_secrets.cli.arguments import KINDS_BY_WORD
from airflow_providers_secrets.cli.endpoints import DESCRIPTION_LOST, Origin, json_text
from airflow_providers_secrets.cli.reading import read_file
from airflow_providers_secrets.errors import ConfigurationError, Unusable, json_place, quoted
from airflow_providers_secrets.lookup.plan import Kind


class FromFile(Origin):
    """A file as ``airflow connections export`` or ``variables export`` writes it: JSON, YAML, or ``ID=VALUE`` lines.

    An object with only the keys ``connections`` and ``variables`` holds both kinds; any other, the one kind requested.
    """

    def __init__(self, path: str, kinds: Iterable[Kind]) -> None:
        self.title = f"file {path}"
        self.identity = str(Path(path).absolute())
        kinds = tuple(kinds)
        parsed = _parsed_file(path)
        if set(parsed) <= {"connections", "variables"} and all(isinstance(v, dict) for v in parsed.values()) and parsed:
            self._entries: dict[str, Mapping[str, Any]] = parsed
        elif len(kinds) == 1:
            self._entries = {kinds[0]: parsed}
        else:
            raise ConfigurationError(f"{path} holds one kind of secrets; say which with --kind conn or --kind var.")

    def ids(self, kind: Kind) -> Iterable[str]:
        """Return the ids in the file's order."""
        return list(self._entries.get(kind, ()))

    def text(self, kind: Kind, secret_id: str) -> str | None:
        """Return a value of the file."""
        value = self._entries.get(kind, {}).get(secret_id)
        if kind == "connections" and isinstance(value, Mapping):
            known = {
                name: one
                for name, one in value.items()
                if name not in ("conn_id", "id", "is_encrypted", "is_extra_encrypted")
            }
            return json_text(known)
        if kind == "variables" and _is_described(value):
            value = value["value"]
        if value is None and secret_id in self._entries.get(kind, {}):
            raise Unusable("the file has null for it")
        if value is None or isinstance(value, str):
            return value
        return json_text(value)

    def loses(self, kind: Kind, secret_id: str) -> str | None:
        """Return that a variable's description is lost: Airflow gets none from a secrets backend."""
        value = self._entries.get(kind, {}).get(secret_id)
        if kind == "variables" and _is_described(value) and value.get("description"):
            return DESCRIPTION_LOST
        return None


def _is_described(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Tell whether *value* has the form in which the export writes a variable with a description."""
    return isinstance(value, Mapping) and set(value) <= {"value", "description"} and "value" in value


def _parsed_file(path: str) -> dict[str, Any]:
    text = read_file(path, "--from file:PATH")
    fault = "is not valid JSON or YAML"
    parsed: Any = None
    if path.endswith((".env", ".txt")):
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if any("=" not in line for line in lines):
            raise ConfigurationError(f"{path}: write each line as ID=VALUE.")
        entries = [(name.strip(), value.strip()) for name, _, value in (line.partition("=") for line in lines)]
        return _each_once(path, _Pairs(entries))
    try:
        if path.endswith((".yaml", ".yml")):
            import yaml

            parsed = yaml.load(text, _yaml_loader())  # noqa: S506  # a safe loader
        else:
            parsed = json.loads(text, object_pairs_hook=_Pairs)
    except Exception as error:  # noqa: BLE001  # its message quotes the file, which holds secrets
        if isinstance(error, json.JSONDecodeError):
            fault = f"is not valid JSON{json_place(error)}"
    if not isinstance(parsed, dict):
        raise ConfigurationError(f"{path} {fault if parsed is None else 'holds no object of ids and values'}.")
    for part in (parsed, parsed.get("connections"), parsed.get("variables")):
        if isinstance(part, _Pairs):
            _each_once(path, part)
    return {str(name): value for name, value in parsed.items()}


class _Pairs(dict[str, Any]):
    """An object of a file, which records the first of its names that occurs twice."""

    def __init__(self, pairs: list[tuple[Any, Any]], written: list[str] | None = None) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs] if written is None else written
        self.twice = next((name for name, number in Counter(names).items() if number > 1), None)


def _each_once(path: str, entries: _Pairs) -> _Pairs:
    """Return *entries* if no id occurs twice.

    :raises ConfigurationError: if an id occurs twice: one of its values would be lost silently.
    """
    if entries.twice is not None:
        raise ConfigurationError(f"{path} holds {quoted(entries.twice)} twice; leave one of them.")
    return entries


def _yaml_loader() -> Any:
    """Return a safe YAML loader whose objects are :class:`_Pairs`."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    of_ids: list[Any] = []  # the objects whose names are ids: the whole file and its parts

    def pairs(loader: Any, node: Any) -> _Pairs:
        written = [str(name.value) for name, _ in node.value]
        loader.flatten_mapping(node)  # a name that "<<" merges in may legitimately occur again
        if not of_ids:
            of_ids[:] = node, *(part for name, part in node.value if name.value in ("connections", "variables"))
        if any(node is one for one in of_ids):
            for name, _ in node.value:
                if isinstance(name, yaml.ScalarNode):
                    # An id is the text as it is written: 007 is not 7, and "on" is not True. Inside a value, a name is
                    # what Airflow reads it as.
                    name.tag = "tag:yaml.org,2002:str"
        return _Pairs(loader.construct_pairs(node, deep=True), written)

    Loader.add_constructor("tag:yaml.org,2002:map", pairs)
    return Loader


def names_from(path: str, kinds: Iterable[Kind]) -> dict[Kind, list[str]]:
    """Read a file of ids, one per line: ``conn:ID`` or ``var:KEY``; without a kind, an id counts for every kind.

    :raises ConfigurationError: if it cannot be read.
    """
    names: dict[Kind, list[str]] = {kind: [] for kind in kinds}
    for number, line in enumerate(read_file(path, "--names FILE").splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        word, found, rest = entry.partition(":")
        kind = KINDS_BY_WORD.get(word) if found else None
        if kind == "config":
            raise ConfigurationError(f"{path}, line {number}: configuration values are not copied; leave the line out.")
        for one in names if kind is None else (kind,):
            if one in names:
                names[one].append(rest if kind else entry)
    return names
