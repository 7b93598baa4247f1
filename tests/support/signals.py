"""The signals of the contract suite."""

from airflow_providers_secrets.testing.signals import TimeIsUp, raised_in_the_main_thread, waits_for_another

__all__ = ["TimeIsUp", "raised_in_the_main_thread", "waits_for_another"]
