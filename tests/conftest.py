"""Fixtures of every test, the order of the kinds, and what each kind took; see ``tests/fixtures``."""

from __future__ import annotations

import os
from collections import defaultdict

import pytest

pytest_plugins = ["tests.fixtures.servers"]

# Quick and narrow first, slow and wide last.
KINDS = ("architecture", "unit", "contract", "integration", "isolation", "durability", "acceptance", "browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the kinds in their order, whatever order the files were named in."""
    items.sort(key=lambda item: KINDS.index(_kind(item.nodeid)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The time of each phase of ``make test`` and of each kind of test."""
    took_s: defaultdict[str, float] = defaultdict(float)
    tests: defaultdict[str, int] = defaultdict(int)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                kind = _kind(report.nodeid)
                took_s[kind] += report.duration
                tests[kind] += report.when == "call"
    terminalreporter.section("time of each phase")
    for line in os.environ.get("PHASES", "").splitlines():
        name, _, seconds = line.partition(" ")
        terminalreporter.write_line(f"{name:<14}{float(seconds):7.1f} s")
    for kind in sorted(took_s, key=KINDS.index):
        terminalreporter.write_line(f"{kind:<14}{took_s[kind]:7.1f} s  {tests[kind]} tests")


def _kind(nodeid: str) -> str:
    """The folder of ``tests`` that a test is in."""
    return nodeid.split("/")[1]
