"""What a process caches of a store, for every backend, on every server."""

from airflow_providers_secrets.testing.contract.cache import *
