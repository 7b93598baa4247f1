"""The secrets backends, one module for each store."""

# Airflow's configuration constructs the configured backend while it is itself being imported. Whoever
# imports a backend first would otherwise meet that backend's module half loaded.
import airflow.configuration  # noqa: F401
