"""What every store that can be written to holds to."""

from airflow_providers_secrets.testing.contract.writes import *
