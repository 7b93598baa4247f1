"""No frame that an error carries holds what was stored."""

from airflow_providers_secrets.testing.contract.leaks import *
