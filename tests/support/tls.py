"""The TLS front of the contract suite."""

from airflow_providers_secrets.testing.tls import TlsFront

__all__ = ["TlsFront"]
