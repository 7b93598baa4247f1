"""botocore's data files, read once for a process and its forked children."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from botocore.loaders import Loader, create_loader

CALLED: Final = {
    "ssm": ("DeleteParameter", "DescribeParameters", "GetParameter", "GetParametersByPath", "PutParameter"),
}
"""The operations that we call of a service that has very many. botocore makes each operation a method of every client
and inspects all their shapes for the client's exceptions. SSM's 150 are half the cost of a forked child's first
lookup."""

_loaders: dict[str | None, LeanLoader] = {}
"""The loaders by the value of AWS_DATA_PATH. A loader keeps what it has read, and clients do not change it."""


def loader_for(data_path: str | None) -> LeanLoader:
    """Return the process's one loader that searches *data_path* besides botocore's own directories."""
    return _loaders.get(data_path) or _loaders.setdefault(data_path, LeanLoader(data_path))


class LeanLoader(Loader):  # type: ignore[misc]  # botocore is untyped
    """Loads botocore's data without ``endpoints.json``, which takes longer to load than everything else together.

    Since botocore takes endpoints from each service's own rules, ``endpoints.json`` (1.2 MB) serves only to
    tell partitions apart, which ``partitions.json`` (7 kB) does as well.

    :param data_path: directories to search first, in the format of AWS_DATA_PATH.
    """

    def __init__(self, data_path: str | None = None) -> None:
        super().__init__(create_loader(data_path).search_paths, include_default_search_paths=False)
        self._in_short: dict[tuple[str, str | None], dict[str, Any]] = {}

    @property
    def search_paths(self) -> list[str]:
        """The directories to search; a copy, since each boto3 session appends the one with its resources."""
        return list(self._search_paths)

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> Any:
        """Load one model of a service; of SSM's, only the operations that we call and the shapes they need."""
        called = CALLED.get(service_name)
        if type_name != "service-2" or not called:
            return super().load_service_model(service_name, type_name, api_version)
        known = self._in_short.get((service_name, api_version))
        if known is None:
            # With a temporary loader: a loader keeps whatever it has read, and 3.4 of these 3.6 MB are not needed.
            reader = Loader(self.search_paths, include_default_search_paths=False)
            model = reader.load_service_model(service_name, type_name, api_version)
            known = self._in_short[service_name, api_version] = _reduced(model, called)
        return known

    def load_data_with_path(self, name: str) -> tuple[Any, str]:
        """Load a data file and return it with its path."""
        if name != "endpoints":
            data, path = super().load_data_with_path(name)
            return data, path
        rules, path = super().load_data_with_path("partitions")
        return {"version": 3, "partitions": [_legacy_partition(rule) for rule in rules["partitions"]]}, path


def _reduced(model: Mapping[str, Any], called: Iterable[str]) -> dict[str, Any]:
    """Return *model* with only the operations *called* and the shapes that they refer to."""
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
    """Return a partition in the format of ``endpoints.json``, without its services."""
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
