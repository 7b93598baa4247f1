"""The contract that every store of this package must meet, for stores of other packages, too.

Needs pytest (``pip install 'airflow-providers-secrets[testing]'``); nothing that runs in Airflow imports it. A package
tests its own store against the contract with a rig (:class:`.Rig`), the fixtures of :mod:`.plugin`, and one line::

    from airflow_providers_secrets.testing.contract import *
"""

from airflow_providers_secrets.testing.proxy import Proxy, Reply, Request
from airflow_providers_secrets.testing.rig import PAGE, Answer, Rig, answer_to, http_faults
from airflow_providers_secrets.testing.tls import TlsFront

__all__ = ["PAGE", "Answer", "Proxy", "Reply", "Request", "Rig", "TlsFront", "answer_to", "http_faults"]
