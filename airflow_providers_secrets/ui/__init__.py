"""The page "Secrets" in Airflow's UI (3.1 and later): what the API server's own backend holds, never a value."""
