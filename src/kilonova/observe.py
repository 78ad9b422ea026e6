"""How a process lets itself be looked at: metrics, the watch over its loop, traces. One line in a role's start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from oslo_config import cfg

from kilonova import config, tracing
from kilonova.health import Health
from kilonova.metrics import Probe, serving
from kilonova.service import certificates


async def observe(
    stack: contextlib.AsyncExitStack,
    conf: cfg.ConfigOpts,
    role: str,
    *,
    port: int | None = None,
    roles: Sequence[str] = (),
    probes: Sequence[Probe] = (),
    health: Health | None = None,
    reloads: list[Callable[[cfg.ConfigOpts], None]] | None = None,
) -> None:
    """Until the stack ends. `port`: tried first where the configuration names none; `roles`: all that run here;
    `reloads`: gets what is to be called with a configuration that is read anew.

    Raises Invalid for a listener that cannot be had, or for tracing without its packages.
    """
    tracer = config.tracer(conf, "all" if roles else role)
    if tracer is not None:
        tracing.use(tracer)

        async def close() -> None:
            tracing.use(None)
            # It sends what is left, and may have to wait for a collector that is not there.
            await asyncio.to_thread(tracer.close)

        stack.push_async_callback(close)
    settings = config.metrics_settings(conf)
    context = settings.tls
    if reloads is not None and context is not None:
        reloads.append(lambda anew: certificates.renew(context, config.metrics_certificate(anew)))
    shown = serving(settings, role, first=port, roles=roles, probes=probes, health=health)
    await stack.enter_async_context(shown)
