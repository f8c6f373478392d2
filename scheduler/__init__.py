"""Workers, which execute runs, and the scheduler, which starts and resumes them by time and by change.

The scheduler process (``python -m scheduler``): any number may run, one leads.

    leader.py       elects the leader: a lock on a direct connection to Postgres
    duties.py       what the leader does: fires what is due, and the jobs with their periods
    timetable.py    the alarm clock: the only door to APScheduler
    pollers.py      looks at external addresses
    maintenance.py  the loop that runs jobs when they are due or when somebody signals

The worker process (``python -m scheduler.worker``) stands beside it and shares nothing with it but the database.
"""
