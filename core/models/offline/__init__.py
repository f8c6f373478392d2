"""The offline model: an OpenAI-compatible server that answers from rules, for machines without an API key.

``prompt`` holds what a model is asked and what it answers; ``chat_wire`` and ``responses_wire`` translate
the two APIs to and from it; ``rules`` decides, without I/O; ``server`` listens. The same words always get
the same answer, and every fact in an answer comes from the conversation or from a tool's result.
"""
