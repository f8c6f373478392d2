"""Blobs: what a reference says, and what may be kept."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from core.errors import InvalidInput, PayloadTooLarge

MAX_BLOB_BYTES = 16 * 1024 * 1024
BLOB_ID = r"^blob_[0-9a-f]{64}$"

# RFC 6838, section 4.2, without parameters.
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")


class BlobRef(BaseModel):
    """A blob, by reference: a field of inputs, results and outputs. ``size`` in bytes.

    Only a tenant that has the blob can read it: the reference by itself opens nothing.
    """

    model_config = ConfigDict(frozen=True)
    blob_id: Annotated[str, Field(pattern=BLOB_ID)]
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob and its content."""

    ref: BlobRef
    content: bytes


def reference(content: bytes, media_type: str) -> BlobRef:
    """How this content is referred to, whoever keeps it and however often.

    Raises ``InvalidInput`` for what is no media type, ``PayloadTooLarge`` above ``MAX_BLOB_BYTES``.
    """
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise InvalidInput("A media type is e.g. application/pdf, in lower case.", field="media_type")
    if len(content) > MAX_BLOB_BYTES:
        raise PayloadTooLarge(
            f"A blob of {len(content)} bytes is too large; at most {MAX_BLOB_BYTES} are kept.", limit=MAX_BLOB_BYTES
        )
    digest = hashlib.sha256(content).hexdigest()
    return BlobRef(blob_id=f"blob_{digest}", media_type=media_type, size=len(content))
