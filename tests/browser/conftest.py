"""Fixtures of the browser tests; see ``tests/fixtures/browser.py``."""

from tests.fixtures.browser import chromium, log_in, pictures

__all__ = ["chromium", "log_in", "pictures"]
