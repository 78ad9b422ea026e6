"""Deletion that can be taken back: with `reclaim_instance_interval`."""

from __future__ import annotations

from typing import Any

from compat.microversions import LATEST
from compat.play import Play

LISTS = (
    "?",
    "?deleted=true",
    "?deleted=false",
    "?status=SOFT_DELETED",
    "?status=soft_deleted",
    "?status=DELETED",
    "?vm_state=soft-delete",
    "?soft_deleted=true",
    "?deleted=true&soft_deleted=false",
    "?deleted=false&soft_deleted=true",
    "?deleted=true&status=SOFT_DELETED",
    "?changes-since=2020-01-01T00:00:00Z",
)
ACTIONS: dict[str, Any] = {
    "os-start": None,
    "os-stop": None,
    "pause": None,
    "unpause": None,
    "suspend": None,
    "resume": None,
    "reboot": {"type": "SOFT"},
    "os-getConsoleOutput": {},
    "addSecurityGroup": {"name": "default"},
}


async def life(play: Play) -> None:
    server = await play.boot("server", token="member", name="softly")
    path = f"/servers/{server}"
    for token in ("reader", "other"):
        await play.ask("delete as", "servers:delete", "DELETE", path, token=token)
    await play.ask("delete", "servers:delete", "DELETE", path, token="member")
    await play.settle(server)
    for at in ("2.1", LATEST):
        for token in ("admin", "member", "reader", "other"):
            await play.ask("shown", "servers:show", "GET", path, at=at, token=token)
    for query in LISTS:
        for token in ("admin", "member"):
            await play.ask(f"list{query}", "servers:list", "GET", f"/servers{query}&name=softly", token=token)
    await play.ask("detail", "servers:detail", "GET", "/servers/detail?status=SOFT_DELETED")
    await play.ask("limits", "limits:show", "GET", "/limits", token="member")
    await play.ask(
        "quota detail", "os-quota-sets:detail", "GET", f"/os-quota-sets/{play.side.project}/detail", token="admin"
    )
    for action, value in ACTIONS.items():
        await play.ask(f"{action} of it", f"actions:{action}", "POST", f"{path}/action", {action: value})
    await play.ask(
        "rebuild of it", "actions:rebuild", "POST", f"{path}/action", {"rebuild": {"imageRef": play.side.image}}
    )
    await play.ask("update", "servers:update", "PUT", path, {"server": {"name": "new"}})
    await play.ask("metadata", "servers:metadata", "POST", f"{path}/metadata", {"metadata": {"a": "b"}})
    await play.ask("tag", "servers:tags", "PUT", f"{path}/tags/blue")
    await play.ask("interface", "os-interface:create", "POST", f"{path}/os-interface", {"interfaceAttachment": {}})
    await play.ask("diagnostics", "diagnostics:show", "GET", f"{path}/diagnostics")
    await play.ask("delete again", "servers:delete", "DELETE", path, token="member")
    await play.settle(server)
    await play.ask("still there", "servers:show", "GET", path)
    for token in ("reader", "other", "nobody"):
        await play.ask("restore as", "actions:restore", "POST", f"{path}/action", {"restore": None}, token=token)
        await play.ask("force as", "actions:forceDelete", "POST", f"{path}/action", {"forceDelete": None}, token=token)
    await play.ask("restore with a value", "actions:restore", "POST", f"{path}/action", {"restore": {"a": 1}})
    await play.settle(server)
    await play.ask("after it", "servers:show", "GET", path)
    await play.ask("restore", "actions:restore", "POST", f"{path}/action", {"restore": ""}, token="member")
    await play.settle(server)
    await play.ask("restored", "servers:show", "GET", path)
    await play.ask("restore again", "actions:restore", "POST", f"{path}/action", {"restore": None}, token="member")
    await play.ask("list after", "servers:list", "GET", "/servers?status=ACTIVE", token="member")
    await play.ask("limits after", "limits:show", "GET", "/limits", token="member")
    await play.send("DELETE", path)
    await play.settle(server)
    await play.ask("force", "actions:forceDelete", "POST", f"{path}/action", {"forceDelete": None}, token="member")
    await play.vanish(server)
    actions = await play.send("GET", f"{path}/os-instance-actions", token="member")
    names = [action["action"] for action in actions.json()["instanceActions"]]
    play.note("events", "os-instance-actions:list", LATEST, "member", names)
    active = await play.boot("active", token="member")
    await play.ask(
        "force an active one", "actions:forceDelete", "POST", f"/servers/{active}/action", {"forceDelete": None},
        token="member",
    )  # fmt: skip
    await play.vanish(active)


async def states(play: Play) -> None:
    """From which states it goes and comes back, over which locks and quotas."""
    stopped = await play.boot("stopped", token="member")
    await play.send("POST", f"/servers/{stopped}/action", {"os-stop": None})
    await play.settle(stopped)
    await play.ask("delete a stopped one", "servers:delete", "DELETE", f"/servers/{stopped}", token="member")
    await play.settle(stopped)
    await play.ask("stopped, shown", "servers:show", "GET", f"/servers/{stopped}")
    await play.ask("restore a stopped one", "actions:restore", "POST", f"/servers/{stopped}/action", {"restore": None})
    await play.settle(stopped)
    await play.ask("stopped, restored", "servers:show", "GET", f"/servers/{stopped}")

    path = f"/servers/{stopped}"
    await play.send("POST", f"{path}/action", {"lock": None})
    await play.ask("delete a locked one", "servers:delete", "DELETE", path, token="member")
    await play.send("POST", f"{path}/action", {"unlock": None})
    await play.send("DELETE", path)
    await play.settle(stopped)
    await play.ask("lock it", "actions:lock", "POST", f"{path}/action", {"lock": None})
    await play.ask(
        "restore a locked one", "actions:restore", "POST", f"{path}/action", {"restore": None}, token="member"
    )
    await play.ask(
        "force a locked one", "actions:forceDelete", "POST", f"{path}/action", {"forceDelete": None}, token="member"
    )
    await play.ask("unlock it", "actions:unlock", "POST", f"{path}/action", {"unlock": None})

    other = await play.boot("other", token="member")
    quota = f"/os-quota-sets/{play.side.project}"
    await play.send("PUT", quota, {"quota_set": {"instances": 1, "force": True}})
    await play.ask("restore over quota", "actions:restore", "POST", f"{path}/action", {"restore": None}, token="member")
    await play.send("DELETE", quota)
    for state in ("active", "error"):
        await play.ask(
            f"reset to {state}", "actions:os-resetState", "POST", f"{path}/action", {"os-resetState": {"state": state}}
        )
        await play.ask(f"reset to {state}, shown", "servers:show", "GET", path, loose={"fault"})
        await play.ask(f"reset to {state}, limits", "limits:show", "GET", "/limits", token="member")
        await play.send("DELETE", path)
        await play.settle(stopped)
    await play.send("POST", f"{path}/action", {"forceDelete": None})
    await play.send("POST", f"/servers/{other}/action", {"forceDelete": None})
    await play.vanish(stopped, other)
