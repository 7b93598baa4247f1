"""The measure of speed of the contract suite."""

from airflow_providers_secrets.testing.speed import LOOK, slowness

__all__ = ["LOOK", "slowness"]
