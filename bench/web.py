"""One uvicorn for both sides, set up as `kilonova up` sets it up."""

from __future__ import annotations

from typing import Any

import uvicorn


async def serve(app: Any, port: int) -> None:
    """Until SIGTERM."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
    )
    await uvicorn.Server(config).serve()
