"""Guards taken away, one at a time: the harness has to notice each.

`python -m tests.workflows.mutations NAME` loads the program with that guard removed and runs the
few cases that are aimed at it; it ends with 0 when one of them came to a bad end.
"""

from __future__ import annotations

import importlib.machinery
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mutation:
    """`old` stands exactly once in the module and becomes `new`; `cases` names an entry of CASES."""

    module: str
    old: str
    new: str
    cases: str


MUTATIONS = {
    "fence: epoch and owner": Mutation(
        "kilonova.engine.store",
        '    operations.c.epoch == sa.bindparam("my_epoch"),\n'
        '    operations.c.owner == sa.bindparam("my_owner"),\n'
        '    operations.c.state == "running",\n)',
        '    sa.bindparam("my_epoch") == sa.bindparam("my_epoch"),\n'
        '    sa.bindparam("my_owner") == sa.bindparam("my_owner"),\n)',
        "boot early thaws",
    ),
    "claim of an operation: only ready ones and lost ones": Mutation(
        "kilonova.engine.store",
        '.where(operations.c.id == sa.bindparam("my_id"), _claimable())',
        '.where(operations.c.id == sa.bindparam("my_id"))',
        "boot messages",
    ),
    "a dead owner's operation is taken over": Mutation(
        "kilonova.engine.store", "return sa.or_(ready, lost)", "return ready", "boot kills, lease"
    ),
    "secrets erased at the end": Mutation(
        "kilonova.engine.run",
        'state="done", step=run.step + 1, data=run.data, secrets=None,',
        'state="done", step=run.step + 1, data=run.data,',
        "boot kills",
    ),
    "slot is free": Mutation(
        "kilonova.compute.servers.submit", "            c.operation_id.is_(None),\n", "", "stop refusals"
    ),
    "delete ends what was under way": Mutation(
        "kilonova.compute.servers.delete", "if current.operation_id is not None:", "if False:", "boot deletes"
    ),
    "delete gives back the claim": Mutation(
        "kilonova.workflows.delete", "    if server.claimed:\n", "    if False:\n", "delete kills"
    ),
    "delete gives back quota": Mutation(
        "kilonova.workflows.delete",
        "await quota_usage.give_back(tx, server.project_id, Amount(1, server.vcpus, server.memory_mb))",
        "quota_usage, Amount",
        "delete kills",
    ),
    "capacity of a host": Mutation(
        "kilonova.compute.claims",
        "nodes.c.vcpus_used + _VCPUS <= nodes.c.vcpus_max",
        "nodes.c.vcpus_used + _VCPUS <= 1_000_000",
        "crowd",
    ),
    "anti-affinity": Mutation(
        "kilonova.compute.claims",
        "        statement = statement.where(c.servers < group.max_server_per_host)\n",
        "        pass\n",
        "apart",
    ),
    "affinity": Mutation(
        "kilonova.compute.claims",
        "if group.policy == AFFINITY and set(await server_groups.hosts(tx, group.id)) - {host}:",
        "if False:",
        "together",
    ),
    "other resource classes": Mutation(
        "kilonova.compute.claims", "c.used + amount <= c.max", "c.used + amount <= 1_000_000", "rare"
    ),
    "a refused claim keeps nothing": Mutation(
        "kilonova.compute.claims",
        "            await _release_node(tx, needs, nodes.c.id == node_id)\n",
        "            pass\n",
        "rare",
    ),
    "delete gives back the place in the group": Mutation(
        "kilonova.compute.claims",
        "            await leave(tx, group, server.host)\n",
        "            pass\n",
        "special deletes",
    ),
    "delete gives back other resources": Mutation(
        "kilonova.compute.claims",
        "        await _give_back(tx, mine, held.resources)\n",
        "        pass\n",
        "special deletes",
    ),
    "delete gives back PCI devices": Mutation(
        "kilonova.compute.claims",
        "        await pci_devices.release(tx, server.uuid)\n",
        "        pass\n",
        "special deletes",
    ),
    "quota": Mutation(
        "kilonova.compute.quota_usage",
        "    limited = tuple(name for name in COUNTED if limit[name] >= 0)\n",
        "    limited = ()\n",
        "quota",
    ),
    "a failed build is undone before the next try": Mutation(
        "kilonova.workflows.boot",
        "effect=build, undo=destroy, undo_commit=bury_build",
        "effect=build",
        "boot host fails",
    ),
    "a failed claim is given back": Mutation(
        "kilonova.workflows.boot",
        "        await claims.release(tx, server, failed=failed)\n",
        "        pass\n",
        "boot host fails",
    ),
    "tombstone for a host that is away": Mutation(
        "kilonova.workflows.steps.destroy", "    if host:\n", "    if False:\n", "boot deletes, host down"
    ),
    "agent refuses what is older": Mutation(
        "kilonova.agent.journal",
        "if key.rank < _newest(db, host, server):",
        "if False:",
        "boot deletes over stalled",
    ),
    "agent does a key once": Mutation(
        "kilonova.agent.journal",
        "return Recorded(State.DONE, msgspec.msgpack.decode(row[2], type=Result))",
        "return Recorded(State.NEW)",
        "late duplicate",
    ),
    "a command without answer is sent again": Mutation(
        "kilonova.conductor.agents",
        'await self.bus.send(f"agent.{host}", command)',
        'await self.bus.send(f"agent.{host}", command) if tries == 0 else None',
        "boot messages",
    ),
    "one reboot per marker": Mutation(
        "kilonova.agent.sim.driver", "if guest.boot_marker != marker:", "if True:", "reboot twice"
    ),
    "one wipe per rebuild": Mutation(
        "kilonova.agent.commands", "if await context.marks.get() != mark:", "if True:", "rebuild twice"
    ),
    "power states: generation": Mutation(
        "kilonova.reconcile.power_state",
        "                instances.c.generation == server.generation,\n",
        "",
        "late power report",
    ),
    "the next one in the queue gets its turn": Mutation(
        "kilonova.workflows.steps.server",
        "        await store.begin_queued(tx, waiting[0])\n",
        "        pass\n",
        "attach two kills",
    ),
    "a failed attach takes its port along": Mutation(
        "kilonova.workflows.attach_interface", "undo=release_port, undo_commit=forget_port, ", "", "attach host fails"
    ),
    "a detached port is let go": Mutation(
        "kilonova.workflows.detach_interface",
        "            await ports.delete_ours(api, port_id, server.uuid)\n",
        "            pass\n",
        "detach kills",
    ),
}


def load_mutated(mutation: Mutation) -> None:
    """From now on the module is loaded as the mutation has it. Raises when its text is not there exactly once."""
    loader = importlib.machinery.SourceFileLoader
    original = loader.get_code

    def get_code(self: Any, fullname: str) -> Any:
        if fullname != mutation.module:
            return original(self, fullname)
        path = self.get_filename(fullname)
        source = Path(path).read_text()
        if source.count(mutation.old) != 1:
            raise SystemExit(f"{path} has {source.count(mutation.old)} times: {mutation.old!r}")
        return compile(source.replace(mutation.old, mutation.new), path, "exec")

    assert mutation.module not in sys.modules, f"{mutation.module} is loaded already"
    loader.get_code = get_code  # type: ignore[method-assign]


async def run(cases: str, directory: Path) -> str | None:
    """The first bad end, or None when all was well."""
    from tests.workflows.harness import faults, races
    from tests.workflows.harness.cases import Case, Harness, trace
    from tests.workflows.harness.cloud import APART, TOGETHER, Config
    from tests.workflows.harness.scenarios import SCENARIOS

    harness = Harness(directory, 1)
    boot, delete = SCENARIOS["boot"], SCENARIOS["delete"]
    two = lambda: Config(conductors=2)  # noqa: E731

    async def boot_points() -> Any:
        return await trace(harness, boot)

    async def of_messages() -> list[Case]:
        found = [nth for nth in await faults.messages(harness, boot) if nth.kind in ("Wake", "Command")]
        return faults.tampered(boot, found)

    async def thaws() -> list[Case]:
        points = [p for p in await trace(harness, boot, two) if "commit" in p.label or "claim" in p.label]
        return await races.early_thaws(harness, boot, points, 3)

    made: dict[str, Callable[[], Awaitable[list[Case]]]] = {
        "boot early thaws": thaws,
        "boot messages": of_messages,
        "boot kills": _later(lambda points: faults.kills(boot, points[::8]), boot_points),
        "boot kills, lease": _later(lambda points: faults.kills(boot, points[::8], alone=False), boot_points),
        "boot deletes": _later(lambda points: faults.deletes(boot, points[::6], host_down=False), boot_points),
        "boot deletes, host down": _later(
            lambda points: faults.deletes(boot, points[::6], host_down=True), boot_points
        ),
        "boot deletes over stalled": _later(
            lambda points: races.deletes_over_stalled(boot, [p for p in points if "Command" in p.label]),
            lambda: trace(harness, boot, two),
        ),
        "boot host fails": _later(
            lambda _: [c for c in faults.failing_hosts(boot) if "'running': host, 1" in c.name], boot_points
        ),
        "delete kills": _later(lambda points: faults.kills(delete, points[::8]), lambda: trace(harness, delete)),
        "stop refusals": _later(
            lambda points: races.refusals(SCENARIOS["stop"], points[6::4]), lambda: trace(harness, SCENARIOS["stop"])
        ),
        "reboot twice": _later(lambda _: faults.doubled_steps(SCENARIOS["reboot hard"]), boot_points),
        "rebuild twice": _later(lambda _: faults.doubled_steps(SCENARIOS["rebuild"]), boot_points),
        "attach two kills": _later(
            lambda points: faults.kills(SCENARIOS["attach two"], points[::8]),
            lambda: trace(harness, SCENARIOS["attach two"]),
        ),
        "attach host fails": _later(lambda _: faults.failing_hosts(SCENARIOS["attach"]), boot_points),
        "detach kills": _later(
            lambda points: faults.kills(SCENARIOS["detach"], points[::8]), lambda: trace(harness, SCENARIOS["detach"])
        ),
        "crowd": _later(lambda _: [races.crowd(12, 3)], boot_points),
        "apart": _later(lambda _: [races.grouped(APART, 8, 2)], boot_points),
        "together": _later(lambda _: [races.grouped(TOGETHER, 8, 3, room=3)], boot_points),
        "rare": _later(lambda _: [races.rare(8, 4)], boot_points),
        "special deletes": _later(
            lambda points: faults.kills(SCENARIOS["delete special"], points[::8]),
            lambda: trace(harness, SCENARIOS["delete special"]),
        ),
        "quota": _later(lambda _: [races.quota(3, 12)], boot_points),
        "late duplicate": _later(lambda _: [races.late_duplicate()], boot_points),
        "late power report": _later(lambda _: [races.late_power_report()], boot_points),
    }
    try:
        for case in await made[cases]():
            outcome = await harness.run(case)
            if outcome.problems:
                return str(outcome)
    except AssertionError as error:
        # An undisturbed run came to a bad end already.
        return str(error)
    return None


def _later(
    make: Callable[[Any], list[Any]], points: Callable[[], Awaitable[Any]]
) -> Callable[[], Awaitable[list[Any]]]:
    async def made() -> list[Any]:
        return make(await points())

    return made


def main(name: str) -> int:
    load_mutated(MUTATIONS[name])
    return _judge(MUTATIONS[name].cases, expect_bad=True)


def _judge(cases: str, *, expect_bad: bool) -> int:
    from tests.workflows.harness import clock, logs

    logs.capture()
    with tempfile.TemporaryDirectory() as directory:
        bad = clock.run(lambda: run(cases, Path(directory)))
    print(bad or "no bad end")
    return int((bad is not None) != expect_bad)


if __name__ == "__main__":
    if sys.argv[1] == "--unmutated":
        sys.exit(_judge(sys.argv[2], expect_bad=False))
    sys.exit(main(sys.argv[1]))
