"""The secrets backends, one module for each store."""

# Airflow's configuration constructs the configured backend while it is itself being imported. Code that
# imports a backend before Airflow's configuration would otherwise get that backend's module half loaded.
import airflow.configuration  # noqa: F401
