"""Fixtures of the browser tests; see ``tests/fixtures/browser.py``, ``busy.py`` and ``looking.py`` beside it."""

from tests.fixtures.browser import chromium, log_in, pictures
from tests.fixtures.busy import busy_dashboard
from tests.fixtures.looking import look

__all__ = ["busy_dashboard", "chromium", "log_in", "look", "pictures"]
