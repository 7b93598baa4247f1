"""What works with the official class works here, on every store."""

from airflow_providers_secrets.testing.contract.compatibility import *
