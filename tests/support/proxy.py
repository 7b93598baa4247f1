"""The proxy of the contract suite."""

from airflow_providers_secrets.testing.proxy import Fault, Proxy, Reply, Request

__all__ = ["Fault", "Proxy", "Reply", "Request"]
