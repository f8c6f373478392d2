"""Chainlit is imported here first: what it depends on warns about itself, which is not for us to fix."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import chainlit.data
    import chainlit.server  # noqa: F401
