"""The local Postgres, Redis and graph servers of ``bailiwick up`` and of the tests.

Each server is a real one, shipped inside a wheel and run as a child process: ``postgres.Postgres``,
``redis.Redis``, ``graph.Graph``, each with ``start()``, ``stop()`` and ``url``. They listen on 127.0.0.1
only, ask for a password, and keep data and logs below one home folder. ``servers.complete`` gives the
addresses to a ``Settings`` that names no servers of its own.

On failure: a port in use, a folder that cannot be written or a missing library raises ``SetupError`` with
one line that says what to do. A server that dies, or whose home was left by a killed process, starts again
from what it had written. When the process that started it dies in any way, ``reaper.py`` stops the server.
"""
