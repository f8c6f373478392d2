"""Rules that turn a prompt into an answer: pure functions, English only, no I/O, no clock, no chance.

``engine.answer`` is the way in. ``intents`` reads what the user wants, ``arguments`` fits it to the schema
of the tools on offer, ``narration`` says what the tools answered. ``extraction`` serves the memory manager,
``structured`` and ``compliance`` serve agents that must answer in JSON.
"""
