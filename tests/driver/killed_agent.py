"""One server's life in a process of its own, to be killed anywhere: `python -m tests.driver.killed_agent ...`.

Prints each verb before it starts. Done again from the beginning it completes, as an agent's journal would have it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from kilonova.agent.driver import PowerState, Secrets, ServerSpec
from tests.driver.contract import no_progress
from tests.driver.libvirt_rig import LibvirtRig


async def live(rig: LibvirtRig, spec: ServerSpec) -> None:
    driver = rig.driver()
    await driver.start()
    uuid = spec.uuid
    assert spec.image is not None
    for name, verb in (
        ("image", lambda: driver.ensure_image(spec.image, rig.source, None, no_progress)),
        ("disks", lambda: driver.ensure_disks(spec)),
        ("config_drive", lambda: driver.ensure_config_drive(spec, Secrets(admin_password="pw"))),
        ("defined", lambda: driver.ensure_defined(spec)),
        ("running", lambda: driver.ensure_running(uuid)),
        ("rebooted", lambda: driver.ensure_rebooted(uuid, hard=True, marker="m", timeout=0)),
        ("suspended", lambda: driver.ensure_suspended(uuid)),
        ("resumed", lambda: driver.ensure_resumed(uuid)),
        ("stopped", lambda: driver.ensure_stopped(uuid, 0)),
    ):
        print(name, flush=True)
        await verb()
    assert await driver.power_state(uuid) is PowerState.SHUTDOWN
    print("absent", flush=True)
    await driver.ensure_absent(uuid)
    print("disks_absent", flush=True)
    await driver.ensure_disks_absent(uuid)
    await driver.close()
    print("done", flush=True)


def main() -> None:
    uri, directory, image, spec = sys.argv[1:]
    rig = LibvirtRig(uri, Path(directory), Path(image))
    asyncio.run(live(rig, msgspec.json.decode(spec, type=ServerSpec)))


if __name__ == "__main__":
    main()
