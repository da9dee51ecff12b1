"""What a person should know of while a run goes on."""

from __future__ import annotations

import logging

from online.session.journal import Journal

log = logging.getLogger(__name__)


def warn(journal: Journal, message: str) -> None:
    """Say it now, and in the report."""
    log.warning("%s", message)
    journal.event(message)
