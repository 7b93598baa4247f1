"""What lookups came to, as the operator and Airflow's metrics see it."""

from __future__ import annotations

import http.server
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from airflow_providers_secrets.lookup import answers, metrics
from airflow_providers_secrets.testing.lookups import ONE_TRY, TTL, Clock, failing, stored
from airflow_providers_secrets.testing.processes import run_python
from tests.rigs import Rig
from tests.rigs.aws import SsmRig
from tests.support.airflow_process import VERSION


def test_every_way_that_a_lookup_ends_is_counted(rig: Rig, clock: Clock) -> None:
    stored(rig, "counted", "x")
    backend = rig.caching(**ONE_TRY)
    for key in ("counted", "absent"):
        for _ in range(3):
            backend.get_variable(key)
    with rig.fault("denied"):
        failing(lambda: backend.get_variable("denied"), 3)
    clock.now += TTL
    with rig.fault("server-error"):
        backend.get_variable("counted")
    (counts,) = answers.counts_of_this_process().values()
    assert counts == {
        "calls": 4,
        "hits": 2,
        "negative_hits": 2,
        "shared_hits": 0,
        "stale": 1,
        "errors.AccessDenied": 1,
        "errors.StoreUnavailable": 1,
    }


def test_what_cannot_be_decoded_is_counted_and_told(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each lookup, whoever gave it: an alert ends when nobody asks for it any more."""
    path = rig.path("connections", "unreadable")
    rig.put(path, "no connection at all")
    told: Counter[str] = Counter()

    class Stats:
        incr = staticmethod(lambda name, count: told.update({name.rpartition("secrets_backend.")[2]: count}))
        timing = staticmethod(lambda *_: None)

    monkeypatch.setattr(metrics, "_stats", lambda: Stats)
    backend = rig.caching()
    failing(lambda: backend.get_conn_value("unreadable"), 3)
    (counts,) = answers.counts_of_this_process().values()
    assert counts["errors.InvalidSecret"] == 3
    assert [count for name, count in told.items() if name.endswith(".errors.InvalidSecret")] == [3]


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(60)
        yield server


SET_UP = """
import airflow.settings
try:
    from airflow.COMPONENT_shared.observability.metrics import stats
    from airflow.observability.metrics import stats_utils
    if hasattr(stats, "initialize"):
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)
    else:  # Airflow 3.2
        stats.Stats.initialize(factory=stats_utils.get_stats_factory(stats.Stats))
except ImportError:
    import airflow.stats
"""
"""What a component of Airflow, or the runner of a task, does when it starts."""


@pytest.mark.each_airflow
@pytest.mark.parametrize("component", ["", "sdk."])
def test_airflows_metrics_are_told(ssm: SsmRig, statsd: socket.socket, component: str) -> None:
    stored(ssm, "measured", "x")
    code = (
        SET_UP.replace("COMPONENT", component)
        + "from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend as Backend\n"
        f"backend = Backend(**{ssm.options()!r})\n"
        "[backend.get_variable(key) for key in ('measured', 'measured', 'absent', 'absent', 'another')]\n"
    )
    settings = {"STATSD_ON": "True", "STATSD_HOST": "127.0.0.1", "STATSD_PORT": str(statsd.getsockname()[1])}
    run = run_python(code, **{f"AIRFLOW__METRICS__{name}": value for name, value in settings.items()})
    assert run.returncode == 0, run.stderr
    told: Counter[str] = Counter()
    timings = 0
    while told["calls"] < 3:
        name, _, rest = statsd.recv(1024).decode().partition(":")
        value, _, kind = rest.partition("|")
        prefix, _, event = name.partition("secrets_backend.aws_ssm.")
        if not event:
            continue
        assert prefix == "airflow."
        if event == "call":
            assert kind == "ms"
            timings += 1
        else:
            told[event] += int(value)
    assert told == {"calls": 3, "hits": 1, "negative_hits": 1}
    assert timings >= 2


class Collector(http.server.BaseHTTPRequestHandler):
    """An OpenTelemetry collector: takes what is exported over HTTP."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def exported_by(code: str) -> dict[str, float]:
    """Run *code* beside a collector, and return what it was sent: each metric's last value, or how many there were."""
    proto = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.received = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        run = run_python(
            code,
            AIRFLOW__METRICS__OTEL_ON="True",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://127.0.0.1:{server.server_port}/v1/metrics",
        )
        server.shutdown()
    assert run.returncode == 0, run.stderr
    told: dict[str, float] = {}
    for path, body in server.received:  # type: ignore[attr-defined]
        assert path == "/v1/metrics"
        exported = proto.ExportMetricsServiceRequest.FromString(body)
        for resource in exported.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    (point,) = getattr(metric, metric.WhichOneof("data")).data_points
                    told[metric.name] = point.count if hasattr(point, "count") else point.as_int or point.as_double
    return told


with_opentelemetry = pytest.mark.skipif(
    VERSION < (3, 3), reason="earlier ones read other settings, or keep their metrics elsewhere"
)


@with_opentelemetry
def test_opentelemetry_is_told(ssm: SsmRig) -> None:
    stored(ssm, "measured", "x")
    code = (
        SET_UP.replace("COMPONENT", "")
        + "from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend as Backend\n"
        f"backend = Backend(**{ssm.options()!r}, max_attempts=1)\n"
        "stats.incr('scheduler_heartbeat')\n"
        "[backend.get_variable(key) for key in ('measured', 'measured', 'absent', 'absent', 'another')]\n"
        "from opentelemetry import metrics\n"
        "metrics.get_meter_provider().force_flush()\n"
    )
    told = exported_by(code)
    ours = {name: told[name] for name in told if ".secrets_backend." in name}
    prefix = "airflow.secrets_backend.aws_ssm."
    assert ours == {prefix + "calls": 3, prefix + "call": 3, prefix + "hits": 1, prefix + "negative_hits": 1}


@with_opentelemetry
def test_no_exporter_is_made_where_airflow_makes_none(ssm: SsmRig) -> None:
    """Such as in the parsing of a DAG file, which would wait for it at its end: 7 s if no collector answers."""
    code = (
        SET_UP.replace("COMPONENT", "") + "import atexit, os\n"
        "from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend as Backend\n"
        f"backend = Backend(**{ssm.options()!r}, max_attempts=1)\n"
        "stats.incr('dag_processing.processes')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    backend.get_variable('absent')\n"
        "    print('told by', stats._backend)\n"
        "    atexit._run_exitfuncs()\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    told = exported_by(code)
    assert [name for name in told if ".secrets_backend." in name] == []


@with_opentelemetry
def test_what_a_task_tells_opentelemetry_itself_is_sent_when_it_ends(ssm: SsmRig) -> None:
    """A LocalExecutor's task inherits its scheduler's metrics beside its own; at its end one of the two is sent."""
    code = (
        SET_UP.replace("COMPONENT", "") + "import os, atexit\n"
        "child = os.fork()\n"
        "if child:\n"
        "    os._exit(os.waitpid(child, 0)[1])\n"
        + SET_UP.replace("COMPONENT", "sdk.")
        + "from airflow.sdk._shared.observability.metrics import stats\n"
        "stats.incr('ti.start')\n"
        "from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend as Backend\n"
        f"Backend(**{ssm.options()!r}).get_variable('absent')\n"
        "atexit._run_exitfuncs()\n"
        "os._exit(0)\n"
    )
    told = exported_by(code)
    assert {"airflow.ti.start", "airflow.secrets_backend.aws_ssm.calls"} <= told.keys()


def test_metrics_that_are_off_are_not_imported(ssm: SsmRig) -> None:
    code = (
        "import sys, airflow.settings\n"
        "before = set(sys.modules)\n"
        "from airflow_providers_secrets.backends.aws_ssm import SystemsManagerParameterStoreBackend as Backend\n"
        f"Backend(**{ssm.options()!r}).get_variable('absent')\n"
        "print([name for name in set(sys.modules) - before if 'stats' in name or 'observability' in name])\n"
    )
    run = run_python(code)
    assert run.stdout.splitlines()[-1] == "[]", run.stderr
