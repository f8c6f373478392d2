"""How runs are measured: beside bare DBOS workflows where there is one, and at rest by the hundred thousand.

Each module measures one thing on servers of its own and says at its top how. ``bench_runs`` puts them into one table.
"""
