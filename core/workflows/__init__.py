"""The authoring API: everything a package of workflows imports.

from core.workflows import Retry, Run, Step, usd, workflow
"""

from core.blobs.model import BlobRef
from core.errors import ChildFailed, StepFailed
from core.runs.model import Lane
from core.usage.model import usd
from core.workflows.children import Child
from core.workflows.definition import WorkflowDefinition, hours, workflow
from core.workflows.registry import Registry
from core.workflows.retry import Retry
from core.workflows.run import Run
from core.workflows.step import Step
from core.workflows.undoing import Undo

__all__ = [
    "BlobRef",
    "Child",
    "ChildFailed",
    "Lane",
    "Registry",
    "Retry",
    "Run",
    "Step",
    "StepFailed",
    "Undo",
    "WorkflowDefinition",
    "hours",
    "usd",
    "workflow",
]
