"""The fair queue under load. ``tests/benchmarks/bench_queue.py`` runs everything here and writes one table.

Time is a parameter of every verb of the queue, so most rows drive the real SQL by a clock of their own: a job of
34 seconds costs two calls. Rows about milliseconds use real workers and real time.
"""
