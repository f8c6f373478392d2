"""Fixtures of every test, see ``tests/fixtures``; and what holds for all that Hypothesis tries."""

from hypothesis import settings

pytest_plugins = [
    "tests.fixtures.chainlit_folder",
    "tests.fixtures.passwords",
    "tests.fixtures.phases",
    "tests.fixtures.servers",
    "tests.fixtures.models",
    "tests.fixtures.installation",
]

# Hypothesis would fail a test one of whose examples took more than 0.2 s, once: on a busy machine anything may, and it
# says nothing about what is tested. Whatever hangs is ended by the timeout of pytest.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
