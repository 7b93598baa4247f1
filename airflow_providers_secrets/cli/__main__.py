"""``python -m airflow_providers_secrets.cli`` is ``airflow-secrets``."""

import sys

from airflow_providers_secrets.cli import main

sys.exit(main())
