"""Compute's own roles as `kilonova up` starts them, without Identity and Image. `python -m bench.roles DIR OFFSET`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path


async def run(directory: Path, offset: int) -> None:
    # Imported here, so that the time to import them is the roles' own.
    from kilonova.allinone.settings import CloudSettings, Ports
    from kilonova.roles import Roles

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    nobody = "http://127.0.0.1:9"
    roles = Roles(
        CloudSettings(
            state_dir=directory,
            cloud_id="bench",
            bind="127.0.0.1",
            host="127.0.0.1",
            ports=Ports.with_offset(offset),
            hypervisor="sim",
            sim_hosts=1,
            libvirt_uri=None,
            identity_url=nobody,
            image_url=nobody,
            service_username="nova",
            service_password="bench",
            service_project="service",
            config_files=(),
        )
    )
    await roles.start()
    while await roles.ready() is not None:  # noqa: ASYNC110  # it is asked, it does not tell
        await asyncio.sleep(0.005)
    print("ready", flush=True)
    await ended.wait()
    await roles.stop()


def main() -> None:
    import structlog
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    uvloop.run(run(Path(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
