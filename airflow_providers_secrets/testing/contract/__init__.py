"""Every test of the contract. They ask for one fixture of the caller's, ``rig``, and for those of the plugin."""

from airflow_providers_secrets.testing.contract.cache import *
from airflow_providers_secrets.testing.contract.compatibility import *
from airflow_providers_secrets.testing.contract.deadline import *
from airflow_providers_secrets.testing.contract.forks import *
from airflow_providers_secrets.testing.contract.leaks import *
from airflow_providers_secrets.testing.contract.lookup import *
from airflow_providers_secrets.testing.contract.preload import *
from airflow_providers_secrets.testing.contract.transport import *
from airflow_providers_secrets.testing.contract.writes import *
