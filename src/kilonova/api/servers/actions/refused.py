"""Actions that this release recognises and refuses, before anything changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kilonova.api.errors import HttpError
from kilonova.api.requests import Request
from kilonova.api.routing import Handler
from kilonova.api.servers.lookup import find
from kilonova.api.servers.unbuilt import unbuilt
from kilonova.compute.servers.submit import check_lock
from kilonova.errors import Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """`from_state`: the state that the action would need, in which no server can be as yet."""

    key: str
    rule: str
    since: str | None = None
    until: str | None = None
    from_state: str | None = None
    locks: bool = True
    """Whether a lock stands before it."""


ACTIONS: Final = (
    Refused(key="changePassword", rule="os_compute_api:os-admin-password"),
    Refused(key="confirmResize", rule="os_compute_api:servers:confirm_resize", from_state="resized"),
    Refused(key="revertResize", rule="os_compute_api:servers:revert_resize", from_state="resized"),
    Refused(key="resize", rule="os_compute_api:servers:resize"),
    Refused(key="createBackup", rule="os_compute_api:os-create-backup"),
    Refused(key="createImage", rule="os_compute_api:servers:create_image", locks=False),
    Refused(key="evacuate", rule="os_compute_api:os-evacuate", locks=False),
    Refused(key="injectNetworkInfo", rule="os_compute_api:os-admin-actions:inject_network_info"),
    Refused(key="migrate", rule="os_compute_api:os-migrate-server:migrate"),
    Refused(key="os-migrateLive", rule="os_compute_api:os-migrate-server:migrate_live"),
    Refused(key="rescue", rule="os_compute_api:os-rescue"),
    Refused(key="unrescue", rule="os_compute_api:os-unrescue", from_state="rescued"),
    Refused(key="shelve", rule="os_compute_api:os-shelve:shelve"),
    Refused(key="shelveOffload", rule="os_compute_api:os-shelve:shelve_offload", from_state="shelved"),
    Refused(key="unshelve", rule="os_compute_api:os-shelve:unshelve", from_state="shelved"),
    Refused(key="trigger_crash_dump", rule="os_compute_api:servers:trigger_crash_dump", since="2.17"),
)


def refuse(action: Refused) -> Handler:
    async def handler(request: Request) -> None:
        server = await find(request, action.rule, parameter="id")
        if action.locks:
            check_lock(request.context, server)
        if action.from_state is not None and server.vm_state != action.from_state:
            raise Conflict(f"Cannot '{action.key}' instance {server.uuid} while it is in vm_state {server.vm_state}")
        raise unbuilt(f"The action '{action.key}'")

    return handler


async def gone(request: Request) -> None:
    """`resetNetwork`, which went with a hypervisor."""
    raise HttpError(410, "This action was removed from the API: it worked with the Xen hypervisor only.")


async def no_rdp(request: Request) -> None:
    raise HttpError(400, "Unavailable console type rdp.")
