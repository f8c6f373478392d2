"""Blobs: kept once, within exact limits, for as long as the policy says, and nobody else's."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from core.blobs.model import MAX_BLOB_BYTES, BlobRef
from core.blobs.service import BlobService
from core.clock import FakeClock
from core.errors import Forbidden, InvalidInput, NotFound, PayloadTooLarge, QuotaExceeded
from core.settings import Settings
from core.tenancy import Policy, Role, Scope
from tests.fixtures.web import web_in
from tests.fixtures.work import work_in

PDF = "application/pdf"


async def test_the_same_content_is_kept_once_per_tenant_and_is_nobody_elses(settings: Settings) -> None:
    async with work_in(settings, FakeClock()) as work:
        blobs = BlobService(work.db, work.audit, work.clock)
        bank, union = await work.tenant("bank"), await work.tenant("union")
        refs = await asyncio.gather(*(blobs.put(bank, b"the same", PDF) for _ in range(8)))
        assert len(set(refs)) == 1
        assert await blobs.total(bank) == len(b"the same")
        assert await blobs.put(bank, b"the same", "text/plain") == refs[0], "the first media type stays"
        with pytest.raises(NotFound):
            await blobs.get(union, refs[0].blob_id)
        assert await blobs.put(union, b"the same", "text/plain") == BlobRef(
            blob_id=refs[0].blob_id, media_type="text/plain", size=8
        )
        with pytest.raises(Forbidden):
            await blobs.delete(await work.context("bank", Role.MEMBER), refs[0].blob_id)
        await blobs.delete(bank, refs[0].blob_id)
        assert await blobs.total(bank) == 0
        assert (await blobs.get(union, refs[0].blob_id)).content == b"the same"
        assert (await work.audit.recent(bank))[0].act == "blob.delete"


async def test_a_tenants_limit_is_exact_however_many_put_at_once(settings: Settings) -> None:
    async with work_in(settings, FakeClock()) as work:
        blobs = BlobService(work.db, work.audit, work.clock)
        bank = await work.tenant("bank", Policy(blob_bytes=50))
        puts = (blobs.put(bank, bytes([n]) * 10, PDF) for n in range(9))
        ends = await asyncio.gather(*puts, return_exceptions=True)
        refs = [end for end in ends if isinstance(end, BlobRef)]
        assert (len(refs), await blobs.total(bank)) == (5, 50)
        assert {type(end) for end in ends} == {BlobRef, QuotaExceeded}
        await blobs.delete(bank, refs[0].blob_id)
        await blobs.put(bank, b"now there ", PDF)
        for wrong in ("PDF", "application/pdf; x=1", "a/b\r\nc: d", ""):
            with pytest.raises(InvalidInput):
                await blobs.put(bank, b"", wrong)
        with pytest.raises(PayloadTooLarge):
            await blobs.put(bank, bytes(MAX_BLOB_BYTES + 1), PDF)
        assert await blobs.total(bank) == 50


async def test_a_blob_is_purged_when_nobody_put_it_again_for_as_long_as_the_policy_keeps_it(settings: Settings) -> None:
    async with work_in(settings, FakeClock()) as work:
        blobs = BlobService(work.db, work.audit, work.clock)
        bank, union = await work.tenant("bank", Policy(blob_retention_days=10)), await work.tenant("union")
        old, used, foreign = [
            await blobs.put(ctx, text, PDF) for ctx, text in ((bank, b"a"), (bank, b"b"), (union, b"a"))
        ]
        work.clock.advance(timedelta(days=6).total_seconds())
        await blobs.put(bank, b"b", PDF)
        assert await blobs.purge() == 0
        work.clock.advance(timedelta(days=5).total_seconds())
        assert await blobs.purge() == 1
        with pytest.raises(NotFound):
            await blobs.get(bank, old.blob_id)
        assert (await blobs.get(bank, used.blob_id)).content == b"b"
        assert (await blobs.get(union, foreign.blob_id)).content == b"a"
        assert await blobs.total(bank) == 1


async def test_a_file_goes_up_and_comes_back_over_http_as_an_attachment(settings: Settings) -> None:
    async with web_in(settings) as web, web.client(await web.key("bank")) as http:
        content = bytes(range(256)) * 8_192  # two megabytes: more than any other route takes
        up = await http.post("/api/v1/blobs", content=content, headers={"Content-Type": "text/html; charset=utf-8"})
        assert (up.status_code, up.json()["size"], up.json()["media_type"]) == (201, len(content), "text/html")
        down = await http.get(f"/api/v1/blobs/{up.json()['blob_id']}")
        assert (down.content == content, down.headers["content-disposition"][:10]) == (True, "attachment")
        assert "sandbox" in down.headers["content-security-policy"]
        assert down.headers["x-content-type-options"] == "nosniff"
        assert (await http.get("/api/v1/blobs/blob_nonsense")).status_code == 422
        assert (await http.post("/api/v1/blobs", content=bytes(MAX_BLOB_BYTES + 1))).status_code == 413
        async with web.client(await web.key("union")) as stranger:
            assert (await stranger.get(f"/api/v1/blobs/{up.json()['blob_id']}")).status_code == 404
        async with web.client(await web.key("bank", Scope.RUNS_READ)) as reader:
            assert (await reader.post("/api/v1/blobs", content=b"x")).status_code == 403
