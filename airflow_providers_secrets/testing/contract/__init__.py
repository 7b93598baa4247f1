"""Every test of the contract. They need the plugin's fixtures, and one of the caller's: ``rig``."""

from airflow_providers_secrets.testing.contract.cache import *
from airflow_providers_secrets.testing.contract.compatibility import *
from airflow_providers_secrets.testing.contract.deadline import *
from airflow_providers_secrets.testing.contract.forks import *
from airflow_providers_secrets.testing.contract.leaks import *
from airflow_providers_secrets.testing.contract.lookup import *
from airflow_providers_secrets.testing.contract.preload import *
from airflow_providers_secrets.testing.contract.transport import *
from airflow_providers_secrets.testing.contract.writes import *
