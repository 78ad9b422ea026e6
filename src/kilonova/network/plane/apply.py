"""One pass over a host: every part that differs from the plan, or that something happened to, is brought to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from kilonova import netns
from kilonova.errors import HostFailure
from kilonova.network.plan import DhcpPlan, Plan, RouterPlan
from kilonova.network.plane import limits, links, names, pieces
from kilonova.network.plane.daemon import Daemon
from kilonova.network.plane.shell import Shell
from kilonova.network.statuses import ACTIVE

log = structlog.get_logger(__name__)

ERROR = "ERROR"


@dataclass(slots=True)
class Outcome:
    """`failed`: reasons by namespace; they are to be tried again."""

    ports: frozenset[str] = frozenset()
    routers: dict[str, str] = field(default_factory=dict)
    floatingips: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class Applier:
    """Blocks. What it remembers of its last pass only tells what need not be looked at again."""

    def __init__(self, spaces: names.Spaces, directory: Path, site: links.Site) -> None:
        self.spaces = spaces
        self.shell = Shell()
        self.inner: dict[str, pieces.DhcpSpace | pieces.RouterSpace] = {}
        self._directory = directory
        self._host = pieces.HostSpace(self.shell, spaces.host, site)
        self._limits = limits.Limits(self.shell, spaces.host)
        self._applied: dict[str, object] = {}

    def prepare(self) -> None:
        """Raises HostFailure."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._host.prepare()

    def settle(self) -> None:
        """What no plan changes is as `prepare` left it. Raises OSError."""
        self._host.settle()

    def apply(self, plan: Plan, touched: Collection[str]) -> Outcome:
        """`touched`: namespaces in which something has happened; parts of the plan that are new are found anyway."""
        outcome = Outcome()
        self._bridges(plan, touched, outcome)
        wanted: dict[str, DhcpPlan | RouterPlan] = {self.spaces.dhcp(each.network_id): each for each in plan.dhcp}
        wanted |= {self.spaces.router(each.id): each for each in plan.routers}
        for space, part in wanted.items():
            self._inner(space, part, space in touched, outcome)
        self._remove(wanted, outcome)
        self._try(self.spaces.host, outcome, lambda: self._host.rules(plan))
        self._try(self.spaces.host, outcome, lambda: self._limits.apply(plan, self._host.plugged))
        self._say(plan, outcome)
        return outcome

    def _bridges(self, plan: Plan, touched: Collection[str], outcome: Outcome) -> None:
        host = self.spaces.host
        wanted = (plan.networks, [(port.id, port.network_id) for port in plan.ports], links.service_taps(plan))
        if host in touched or self._applied.get(host) != wanted:
            self._applied.pop(host, None)
            if self._try(host, outcome, lambda: self._host.bridges(plan)):
                self._applied[host] = wanted

    def _inner(self, space: str, part: DhcpPlan | RouterPlan, touched: bool, outcome: Outcome) -> None:
        if not touched and self._applied.get(space) == part:
            return
        self._applied.pop(space, None)
        piece = self.inner.get(space)
        directory = self._directory / space
        done = False
        match part:
            case DhcpPlan():
                if not isinstance(piece, pieces.DhcpSpace):
                    piece = self.inner[space] = pieces.DhcpSpace(self.shell, self.spaces.host, space, directory)
                dhcp = piece
                done = self._try(space, outcome, lambda: dhcp.apply(part))
            case RouterPlan():
                if not isinstance(piece, pieces.RouterSpace):
                    piece = self.inner[space] = pieces.RouterSpace(self.shell, self.spaces.host, space, directory)
                router = piece
                done = self._try(space, outcome, lambda: router.apply(part))
        if done:
            self._applied[space] = part

    def _remove(self, wanted: Collection[str], outcome: Outcome) -> None:
        """Namespaces that this or an earlier process made, and that nobody wants any more."""
        for space in netns.names(self.spaces.inner):
            if space not in wanted:
                self.inner.pop(space, None)
                self._applied.pop(space, None)
                daemon = Daemon(self._directory / space, space)
                self._try(space, outcome, partial(pieces.remove, space, [daemon]))

    def _try(self, space: str, outcome: Outcome, work: Callable[[], None]) -> bool:
        try:
            work()
        except (HostFailure, OSError) as error:
            reason = getattr(error, "details", None) or str(error)
            log.warning("plane.failed", space=space, reason=reason)
            outcome.failed[space] = reason
            return False
        return True

    def _say(self, plan: Plan, outcome: Outcome) -> None:
        for router in plan.routers:
            status = ERROR if self.spaces.router(router.id) in outcome.failed else ACTIVE
            outcome.routers[router.id] = status
            outcome.floatingips |= {each.id: status for each in router.floating}
        if self.spaces.host in outcome.failed:
            return
        # A guest asks for its address as soon as it starts.
        served = {each.network_id: self.spaces.dhcp(each.network_id) for each in plan.dhcp}
        outcome.ports = frozenset(
            port.id
            for port in plan.ports
            if port.up and port.id in self._host.plugged and served.get(port.network_id) not in outcome.failed
        )


def remove_everything(spaces: names.Spaces, directory: Path) -> None:
    """All namespaces of a plane that no longer works, with what serves in them. Raises HostFailure."""
    for space in netns.names(spaces.inner):
        pieces.remove(space, [Daemon(directory / space, space)])
    netns.remove(spaces.host)
    shutil.rmtree(directory, ignore_errors=True)
