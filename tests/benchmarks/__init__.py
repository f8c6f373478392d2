"""Measurements: each prints a table and writes ``results/NAME.json``. Not part of the test run."""
