"""Servers for the pages that need one: see helpers.page_needs."""

from helpers.postgres import postgres  # noqa: F401
from helpers.servers import prefect_server  # noqa: F401
