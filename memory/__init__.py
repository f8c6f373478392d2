"""Long-term memory of tenants: what conversations state, kept with its origin and validity, found again.

``service`` holds the use-cases, ``bootstrap.open_memory`` opens it. Rows in Postgres are the truth; the graph is
a copy of those that relate two things.
"""
