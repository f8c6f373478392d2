"""The outside world of the demo: small HTTP services that the loan workflow calls over the network.

They stand for systems of other companies, so they share no code with the workflows and know nothing of
tenants or runs: each takes the caller's own ``reference``, an ``Idempotency-Key``, and only the facts it needs.

    POST /identity/verify             is this a real adult?
    POST /credit-bureau/reports       a score from 300 to 850
    POST /compliance/screenings       names of suspicious patterns
    POST /decisions/records           the book of decisions
    GET  /feed, POST /feed/entries    a JSON feed with ETag and Last-Modified; a way to change it
    GET  /effects                     per service: calls, effects, repeated keys, duplicated effects

Whatever they did is in an append-only file, so a restart of theirs forgets nothing.
"""
