"""Blobs: what is too large for a run's input, kept once and passed by reference."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request, Response

from chat_app.api import Caller, Services, api_router, needs, read_body
from core.blobs.model import BLOB_ID, BlobRef
from core.errors import InvalidInput, NotFound, PayloadTooLarge, QuotaExceeded
from core.tenancy import Scope

router = api_router("Blobs")

BlobId = Annotated[str, Path(pattern=BLOB_ID, description="`blob_` and the SHA-256 of the content.")]
_CONTENT = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
_TAKEN = needs(Scope.RUNS_WRITE, InvalidInput, PayloadTooLarge, QuotaExceeded)
_TAKEN["openapi_extra"] = {**_TAKEN["openapi_extra"], "requestBody": {"required": True, **_CONTENT}}


@router.post("/blobs", status_code=201, **_TAKEN)
async def keep_blob(request: Request, caller: Caller, services: Services) -> BlobRef:
    """Keep the body, up to 16 MiB, of the media type in `Content-Type`. The same content is kept once."""
    media_type = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    return await services.platform.blobs.put(caller, await read_body(request), media_type)


@router.get(
    "/blobs/{blob_id}",
    response_class=Response,
    **needs(Scope.RUNS_READ, NotFound, also={200: {"description": "The content.", **_CONTENT}}),
)
async def get_blob(blob_id: BlobId, caller: Caller, services: Services) -> Response:
    """The content. Always an attachment: what came from elsewhere is not ours to show or run."""
    blob = await services.platform.blobs.get(caller, blob_id)
    return Response(
        blob.content,
        media_type=blob.ref.media_type,
        headers={
            "Content-Disposition": f"attachment; filename={blob_id}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


@router.delete("/blobs/{blob_id}", status_code=204, **needs(Scope.TENANT_WRITE, NotFound))
async def delete_blob(blob_id: BlobId, caller: Caller, services: Services) -> None:
    """Remove the content; what refers to it finds nothing from now on."""
    await services.platform.blobs.delete(caller, blob_id)
