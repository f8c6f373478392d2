"""What a run executes with when there is no server: lists instead of tables, a clock that is moved.

Each class keeps the promises of the room it stands for (``core.workflows.tools`` names them), for one tenant and
one process. ``tests/contract/test_workflow_tools.py`` holds both to the same scenarios.
"""
