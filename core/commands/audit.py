"""``bailiwick audit``: every tenant's chain recomputed, and the heads that an auditor keeps outside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.markup import escape
from rich.table import Table

from core.audit.model import Break, Chain, Head
from core.bootstrap import Platform
from core.errors import InvalidInput
from core.ids import TenantId
from core.tenancy import PLATFORM, ActorKind, TenantContext


class KeptHeads(BaseModel):
    """Heads as ``bailiwick audit head --json`` prints them."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    at: datetime
    heads: dict[str, Head]


def kept_heads(text: str) -> KeptHeads:
    """Heads that were kept outside. Raises ``InvalidInput`` for anything else."""
    try:
        return KeptHeads.model_validate_json(text)
    except ValidationError as error:
        raise InvalidInput("This is not what `bailiwick audit head --json` printed.") from error


async def heads(platform: Platform, ctx: TenantContext, tenant_id: str | None) -> KeptHeads:
    """The end of every tenant's chain now, or of one's. What is not sealed yet is sealed first."""
    await platform.audit.seal_all()
    return KeptHeads(
        at=platform.clock.now(),
        heads={each.tenant_id: await platform.audit.head(each) for each in await _contexts(platform, ctx, tenant_id)},
    )


async def examine(
    platform: Platform, ctx: TenantContext, tenant_id: str | None, kept: Mapping[str, Head]
) -> list[Chain]:
    """Every tenant's chain recomputed, or one's, and held against the heads that were kept of them.

    Raises ``NotFound`` for a tenant that does not exist, also for one of ``kept``: tenants are never removed.
    """
    contexts = await _contexts(platform, ctx, tenant_id)
    if tenant_id is None:
        known = {each.tenant_id for each in contexts}
        contexts += [await _context(platform, TenantId(name)) for name in kept if name not in known]
    return [await platform.audit.examine(each, kept.get(each.tenant_id)) for each in contexts]


async def _contexts(platform: Platform, ctx: TenantContext, tenant_id: str | None) -> list[TenantContext]:
    if tenant_id is not None:
        return [await _context(platform, TenantId(tenant_id))]
    tenants = await platform.tenants.list_tenants(ctx)
    here = [each.tenant_id for each in tenants if each.region == platform.settings.region]
    return [await _context(platform, each) for each in (PLATFORM, *here)]


async def _context(platform: Platform, tenant_id: TenantId) -> TenantContext:
    # No right at all: hashes and counts are asked for, and the entry at which a chain breaks.
    return await platform.tenants.context_for(tenant_id, actor_kind=ActorKind.SYSTEM, actor_id="cli")


# How it is told ------------------------------------------------------------------------------------------


def heads_as_json(found: KeptHeads) -> str:
    """``{"at", "heads": {tenant: {"seq", "hash"}}}``: what ``bailiwick audit verify --against`` reads."""
    return found.model_dump_json()


def heads_as_table(found: KeptHeads) -> Table:
    """One line per tenant."""
    table = _table("Tenant", "Entries", "Head")
    for tenant_id, head in found.heads.items():
        table.add_row(escape(tenant_id), str(head.seq), head.hash)
    return table


def as_json(chains: Sequence[Chain]) -> str:
    """``{"ok", "chains": [{"tenant_id", "kept_after", "fitting", "unsealed", "head", "broken", "compared"}]}``."""
    found = {"ok": not any(chain.broken for chain in chains), "chains": [asdict(chain) for chain in chains]}
    return json.dumps(found, ensure_ascii=False, default=lambda moment: moment.isoformat())


def as_table(chains: Sequence[Chain], kept: Mapping[str, Head]) -> Table:
    """One line per tenant; a broken chain says what was done to which entry."""
    table = _table("", "Tenant", "Sealed", "Unsealed", "Head", "")
    for chain in chains:
        told = [f"[red]{_fault(chain.broken)}[/]"] if chain.broken else []
        if chain.kept_after:
            told.append(f"kept from entry {chain.kept_after + 1} on; retention removed what was before")
        if chain.broken is None and chain.tenant_id in kept:
            told.append("goes on from the head kept outside" if chain.compared else "the head kept outside is older")
        table.add_row(
            "[red]✗[/]" if chain.broken else "[green]✓[/]",
            escape(chain.tenant_id),
            str(chain.fitting),
            str(chain.unsealed),
            chain.head.hash[:16],
            "\n".join(told),
        )
    return table


def _fault(broken: Break) -> str:
    told = f"entry {broken.seq}: {broken.fault}"
    if (entry := broken.entry) is not None:
        told += f" ({entry.at.isoformat()}, {entry.actor}, {entry.act}, {entry.subject})"
    return escape(told)


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in names:
        numbers: Any = "right" if name in {"Sealed", "Unsealed", "Entries"} else "left"
        table.add_column(name, justify=numbers)
    return table
