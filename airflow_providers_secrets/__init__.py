"""Secrets backends for Apache Airflow, with one set of rules for every store."""

__version__ = "0.1.0"
