"""Fixtures of every test; see ``tests/fixtures``."""

pytest_plugins = [
    "tests.fixtures.chainlit_folder",
    "tests.fixtures.phases",
    "tests.fixtures.servers",
    "tests.fixtures.models",
    "tests.fixtures.installation",
]
