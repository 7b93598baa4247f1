"""Secrets backends for Apache Airflow: five stores, one set of rules."""

__version__ = "0.1.0"
