"""What a trigger awaits, through the Task SDK itself."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.rigs.aws import SsmRig
from tests.support.airflow_process import VERSION, Airflow

pytestmark = pytest.mark.skipif(VERSION < (3, 2), reason="the SDK awaits a backend from Airflow 3.2 on")


@pytest.mark.long
@pytest.mark.skipif(VERSION < (3, 4), reason="the SDK awaits variables from Airflow 3.4 on")
def test_variables_that_are_awaited(airflow: Airflow, ssm: SsmRig) -> None:
    ssm.put("/airflow/variables/awaited", '{"a": 1}')
    airflow.use(ssm)
    with ssm.counted() as calls:
        run = airflow.python(
            """
            import asyncio
            from airflow.sdk import Variable
            from airflow_providers_secrets.backends.mixin import SecretLookupMixin

            awaited, original = [], SecretLookupMixin.aget_variable

            async def noting(self, key, team_name=None):
                awaited.append(key)
                return await original(self, key, team_name)

            SecretLookupMixin.aget_variable = noting

            async def asked():
                found = await Variable.aget("awaited", deserialize_json=True), await Variable.aget("nowhere", "d")
                return *found, await Variable.aget("awaited")

            print("FOUND", asyncio.run(asked()))
            print("AWAITED", *awaited)
            """
        )
    assert run.printed("FOUND") == ["({'a': 1}, 'd', '{\"a\": 1}')"], run.everything
    assert run.printed("AWAITED") == ["awaited nowhere awaited"]
    assert calls == ["/airflow/variables/awaited", "/airflow/variables/nowhere"]


@pytest.mark.long
def test_five_hundred_triggers_in_one_event_loop(airflow: Airflow, ssm: SsmRig) -> None:
    names = [f"of_a_trigger_{number}" for number in range(10)]
    paths = [f"/airflow/connections/{name}" for name in names]
    for path in paths:
        ssm.put(path, "http://u:p@h:80")
    airflow.use(ssm)
    with ssm.counted() as calls:
        run = airflow.python(
            f"""
            import asyncio, threading
            from airflow.sdk import Connection
            from airflow_providers_secrets.backends.mixin import SecretLookupMixin

            names = {names!r}
            awaited = []
            original = SecretLookupMixin.aget_connection

            async def counting(self, conn_id, team_name=None):
                awaited.append(conn_id)
                return await original(self, conn_id, team_name)

            SecretLookupMixin.aget_connection = counting

            async def triggers():
                return await asyncio.gather(*(Connection.async_get(names[at % 10]) for at in range(500)))

            found = asyncio.run(triggers())
            print("FOUND", len(found), {{type(one).__module__ for one in found}}, {{one.port for one in found}})
            print("AWAITED", len(awaited))
            """
        )
    assert run.printed("FOUND") == ["500 {'airflow.sdk.definitions.connection'} {80}"], run.everything
    assert run.printed("AWAITED") == ["500"]
    assert Counter(calls) == Counter(paths)
