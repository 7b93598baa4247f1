"""Our backends inside real Airflow, of whichever line is installed, in processes of its own."""
