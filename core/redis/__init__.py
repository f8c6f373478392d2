"""The only door to Redis. Nothing true lives there: every use declares what happens when Redis is gone.

| use | module | without Redis |
|---|---|---|
| wake-ups | ``bus.signal`` / ``bus.listen`` | same-process listeners still wake; others re-check every second |
| live events | ``bus.publish`` / ``bus.subscribe`` | readers get ``RESYNC`` every 5 s and at the return: read again |
| news of runs | ``bus.news`` | as live events; a crash loses the last 15 ms: readers of executing runs look every 5 s |
| rate limits | ``limits.take`` | ``Unavailable``: the caller parks and asks again; a limit is never exceeded |
| breakers | ``reports.exchange`` | ``Unavailable``: each process learns by itself which endpoints fail |
| cache | ``cache.get`` / ``cache.set`` | every get misses, every set does nothing |

A lost wake-up never loses work, because whoever is woken, or waits too long, reads the database again.
All of them reconnect by themselves; while Redis is down a call fails at once instead of waiting for it.
"""
