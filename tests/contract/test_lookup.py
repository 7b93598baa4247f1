"""What holds for every backend, on every server of its store."""

from airflow_providers_secrets.testing.contract.lookup import *
