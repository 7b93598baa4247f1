"""botocore's data files, read once for a process and the children that it forks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from botocore.loaders import Loader, create_loader

CALLED: Final = {
    "ssm": ("DeleteParameter", "DescribeParameters", "GetParameter", "GetParametersByPath", "PutParameter"),
}
"""The operations called of a service that has very many: each one is a method that every client is made with, and each
of their shapes is looked at for the client's exceptions. The 150 of SSM are half of what a forked child's first lookup
costs."""

_loaders: dict[str | None, LeanLoader] = {}
"""By what AWS_DATA_PATH says. A loader keeps what it has read, and clients do not change it."""


def loader_for(data_path: str | None) -> LeanLoader:
    """Return the process's one loader that searches *data_path* besides botocore's own places."""
    return _loaders.get(data_path) or _loaders.setdefault(data_path, LeanLoader(data_path))


class LeanLoader(Loader):  # type: ignore[misc]  # botocore is untyped
    """Loads botocore's data without ``endpoints.json``, which takes longer than all the rest together.

    Since botocore takes endpoints from each service's own rules, ``endpoints.json`` (1.2 MB) serves only to
    tell partitions apart, which ``partitions.json`` (7 kB) does as well.

    :param data_path: places to search first, as AWS_DATA_PATH spells them.
    """

    def __init__(self, data_path: str | None = None) -> None:
        super().__init__(create_loader(data_path).search_paths, include_default_search_paths=False)
        self._in_short: dict[tuple[str, str | None], dict[str, Any]] = {}

    @property
    def search_paths(self) -> list[str]:
        """Where files are searched; a copy, since each boto3 session appends the place of its resources to it."""
        return list(self._search_paths)

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> Any:
        """Load one model of a service; of SSM's those operations alone that are called, and what they are made of."""
        called = CALLED.get(service_name)
        if type_name != "service-2" or not called:
            return super().load_service_model(service_name, type_name, api_version)
        known = self._in_short.get((service_name, api_version))
        if known is None:
            # By a loader of its own, which goes: one keeps whatever it has read, here 3.4 MB of 3.6.
            reader = Loader(self.search_paths, include_default_search_paths=False)
            model = reader.load_service_model(service_name, type_name, api_version)
            known = self._in_short[service_name, api_version] = _reduced(model, called)
        return known

    def load_data_with_path(self, name: str) -> tuple[Any, str]:
        """Load a data file and tell where it was."""
        if name != "endpoints":
            data, path = super().load_data_with_path(name)
            return data, path
        rules, path = super().load_data_with_path("partitions")
        return {"version": 3, "partitions": [_legacy_partition(rule) for rule in rules["partitions"]]}, path


def _reduced(model: Mapping[str, Any], called: Iterable[str]) -> dict[str, Any]:
    """Return *model* with the operations *called* alone, and the shapes that they reach."""
    operations = {name: model["operations"][name] for name in called}
    reached: dict[str, Any] = {}
    open_ends = list(_shapes_in(operations))
    while open_ends:
        name = open_ends.pop()
        if name not in reached:
            reached[name] = model["shapes"][name]
            open_ends.extend(_shapes_in(reached[name]))
    return {**model, "operations": operations, "shapes": reached}


def _shapes_in(part: Any) -> Iterator[str]:
    """Yield the names of the shapes that a part of a model refers to."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key == "shape" and isinstance(value, str):
                yield value
            else:
                yield from _shapes_in(value)
    elif isinstance(part, list):
        for one in part:
            yield from _shapes_in(one)


def _legacy_partition(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a partition as ``endpoints.json`` spells it, without the services that stand there."""
    names = rule["outputs"]
    plain, dual = names["dnsSuffix"], names["dualStackDnsSuffix"]
    fips, host = "{service}-fips.{region}.{dnsSuffix}", "{service}.{region}.{dnsSuffix}"
    return {
        "partition": rule["id"],
        "dnsSuffix": plain,
        "regionRegex": rule["regionRegex"],
        "regions": rule["regions"],
        "services": {},
        "defaults": {
            "hostname": host,
            "protocols": ["https"],
            "signatureVersions": ["v4"],
            "variants": [
                {"tags": ["fips"], "hostname": fips, "dnsSuffix": plain},
                {"tags": ["dualstack"], "hostname": host, "dnsSuffix": dual},
                {"tags": ["dualstack", "fips"], "hostname": fips, "dnsSuffix": dual},
            ],
        },
    }
