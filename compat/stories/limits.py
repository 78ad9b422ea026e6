"""Absolute limits."""

from __future__ import annotations

from compat.microversions import around, every
from compat.play import Play


async def limits(play: Play) -> None:
    at_boundaries = every() if play.thorough else around(36, 39, 57, 75, 102)
    server = await play.boot("server", token="member")
    for token in ("admin", "member", "reader", "other"):
        await play.sweep("show", "limits:show", "/limits", at_boundaries, token=token)
    for query in ("tenant_id=someone", "reserved=1", "reserved=0", "foo=bar", "tenant_id=a&tenant_id=b", "tenant_id="):
        for at in ("2.1", "2.56", "2.57", "2.74", "2.75", "2.104"):
            await play.ask(f"?{query}", "limits:show", "GET", f"/limits?{query}", at=at)
    await play.ask("of another project, as member", "limits:show", "GET", "/limits?tenant_id=someone", token="member")
    await play.ask(
        "of the own project, as member", "limits:show", "GET", f"/limits?tenant_id={play.side.project}", token="member"
    )
    await play.ask("as nobody", "limits:show", "GET", "/limits", token="nobody")
    await play.ask("legacy", "limits:show", "GET", "/v2/limits", at=None)
    await play.gone(server)
