"""Every error the platform raises on purpose: one tree, each with a stable ``code``.

HTTP numbers are given to these codes in one place only, ``chat_app/problems.py``. Every error takes one
message and keyword details, and survives pickling (process pools need that).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class BailiwickError(Exception):
    """Base of all errors.

    Attributes:
        code: stable machine-readable name, part of the API.
        retryable: the same request may succeed later without being changed.
        retry_after_s: seconds after which a retry is worth it, when known.
        details: JSON-ready facts for the caller; never secrets.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, retry_after_s: float | None = None, **details: Any) -> None:
        super().__init__(message or (self.__doc__ or self.code).splitlines()[0])
        self.retry_after_s = retry_after_s
        self.details: Mapping[str, Any] = details

    @property
    def message(self) -> str:
        """The sentence shown to people."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.retry_after_s, dict(self.details))


def _rebuild(
    cls: type[BailiwickError], message: str, retry_after_s: float | None, details: dict[str, Any]
) -> BailiwickError:
    return cls(message, retry_after_s=retry_after_s, **details)


class Unauthenticated(BailiwickError):
    """No valid identity was given."""

    code = "unauthenticated"


class Forbidden(BailiwickError):
    """The identity is valid but may not do this."""

    code = "forbidden"


class NotFound(BailiwickError):
    """There is no such object here; a foreign object answers exactly like this."""

    code = "not_found"


class InvalidInput(BailiwickError):
    """The request is understood but its content is not acceptable."""

    code = "invalid_input"


class PayloadTooLarge(BailiwickError):
    """The body or a value in it exceeds the limit."""

    code = "payload_too_large"


class Conflict(BailiwickError):
    """The object is not in a state that allows this."""

    code = "conflict"


class IdempotencyConflict(Conflict):
    """The idempotency key was used before with another body."""

    code = "idempotency_conflict"


class QuotaExceeded(BailiwickError):
    """A quota of the tenant is used up."""

    code = "quota_exceeded"
    retryable = True


class TooManyRuns(QuotaExceeded):
    """More runs at once than a quota ever lets in; fewer may be taken."""

    code = "too_many_runs"
    retryable = False


class RateLimited(BailiwickError):
    """Too many requests in this window."""

    code = "rate_limited"
    retryable = True


class BudgetExceeded(BailiwickError):
    """The tenant's budget does not cover this."""

    code = "budget_exceeded"
    retryable = True


class Overloaded(BailiwickError):
    """The platform sheds load; lower lanes first."""

    code = "overloaded"
    retryable = True


class Draining(Overloaded):
    """The operator lets this organisation run dry; nothing new is taken."""

    code = "draining"


class Unavailable(BailiwickError):
    """A part the request needs does not answer."""

    code = "unavailable"
    retryable = True


class WrongRegion(BailiwickError):
    """The tenant lives in another region."""

    code = "wrong_region"


class EndpointDown(BailiwickError):
    """An external service does not answer, and is not called for a while; nothing was sent."""

    code = "endpoint_down"


class NoModelEndpoint(BailiwickError):
    """No model endpoint in the tenant's regions answers; no other region is ever tried."""

    code = "no_model_endpoint"
    retryable = True


class WorkflowUnknown(BailiwickError):
    """No registered workflow has this name and version."""

    code = "workflow_unknown"


class StepFailed(BailiwickError):
    """A step of a run failed for good."""

    code = "step_failed"


class ChildFailed(StepFailed):
    """A child run ended other than succeeded; ``run_id``, ``state`` and ``error`` of it are in the details."""

    code = "child_failed"


class SetupError(BailiwickError):
    """The installation cannot start; the message says what to do."""

    code = "setup"
