"""The plugin that registers the page. Every process imports this, so it loads nothing: the first request does.

Registered by the entry point group ``airflow.plugins``: plugins in a provider's info are loaded only if
``[core] lazy_discover_providers`` is off, and it is on by default (2.11 to 3.3).
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

log = logging.getLogger(__name__)

PREFIX: Final = "/secrets-page"
"""Where the API server serves the page."""

SUPPORTED: Final = hasattr(AirflowPlugin, "external_views")
"""Whether this Airflow supports such pages: since 3.1."""

ENABLED: Final = SUPPORTED and conf.getboolean("secrets", "page", fallback=True)
"""``[secrets] page`` turns the page off. It is on by default: opening it requires Airflow's own permissions."""


class LazyPage:
    """The page as an ASGI application; the first request imports and creates it in a thread."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if self._app is None:
            from airflow_providers_secrets.lookup.awaiting import in_a_thread

            self._app = await in_a_thread(_made)
        await self._app(scope, receive, send)


def _made() -> Any:
    from airflow_providers_secrets.ui.app import make_app

    return make_app()


class SecretsPage(AirflowPlugin):
    """The page, if this Airflow supports it."""

    name = "secrets_page"
    fastapi_apps = [{"app": LazyPage(), "url_prefix": PREFIX, "name": "Secrets"}] if ENABLED else []
    external_views = (
        [
            {
                "name": "Secrets",
                "href": f"{PREFIX.removeprefix('/')}/connections",  # relative: Airflow may be behind a path
                "destination": "nav",
                "category": "admin",
                "url_route": "secrets",
            }
        ]
        if ENABLED
        else []
    )

    @classmethod
    def on_load(cls, *_: Any, **__: Any) -> None:
        """Log in the web server of an older Airflow that the page is not available."""
        if not SUPPORTED and sys.argv[1:2] in (["webserver"], ["api-server"]):  # Airflow 2.11's and 3.0's
            log.info("The page 'Secrets' is not available: it needs Airflow 3.1 or later.")
