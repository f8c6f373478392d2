"""The fault harness: a whole installation whose processes are killed at random while hundreds of runs use everything.

    effects     a server that stands for the outside world: counts effects, is slow, fails, hangs up; never killed
    workflow    the runs: every primitive once
    scene       the processes: servers, web, workers, scheduler; killed (-9) and started again
    killer      whom and when, by seed
    people      submits, cancels, retries, sends events, decides: over the API alone, again when it does not answer
    judge       what must hold afterwards: invariants.sql, the effects, the chains of the audit
    drama       one performance of all of it, and its table

``tests/durability/test_chaos.py`` plays a short one in ``make test``; ``make chaos`` the long one.
"""
