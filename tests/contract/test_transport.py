"""What stands between a lookup and its store is not trusted."""

from airflow_providers_secrets.testing.contract.transport import *
