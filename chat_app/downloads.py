"""Files of conversations over HTTP, for their owner only, also long after the session they came in."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response

from chat_app.services import ChatServices
from core.ids import ThreadId


def file_url(thread_id: str, element_id: str) -> str:
    """Where a file of a conversation is, as the browser asks for it."""
    return f"/chat/files/{quote(thread_id, safe='')}/{quote(element_id, safe='')}"


def downloads(services: ChatServices) -> APIRouter:
    """The route. Always an attachment, never rendered: what people upload is not ours to run."""
    router = APIRouter(include_in_schema=False)

    @router.get("/files/{thread_id}/{element_id}")
    async def download(thread_id: str, element_id: str, request: Request) -> Response:
        identity = await services.identify(request.headers)
        content = await services.conversations.content(identity.ctx, ThreadId(thread_id), element_id)
        return Response(
            content.data,
            media_type=content.mime,
            headers={
                "Content-Disposition": f"attachment; filename*=UTF-8''{quote(content.name, safe='')}",
                "Cache-Control": "private, no-store",
                "Content-Security-Policy": "default-src 'none'; sandbox",
                "X-Content-Type-Options": "nosniff",
            },
        )

    return router
