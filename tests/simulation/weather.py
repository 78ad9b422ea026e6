"""What may go wrong in a run, and how often: the seed decides both, and an end comes to all of it."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import Counter

from tests.simulation.loop import Loop, Node, current


class Trace:
    """What happened, as a number that two equal runs share; the lines themselves where they are wanted."""

    def __init__(self, loop: Loop, lines: list[str] | None = None) -> None:
        self._loop = loop
        self._sum = 0
        self.lines = lines
        self.counts: Counter[str] = Counter()
        """How often each kind of fault struck."""
        self.until_strike = 0
        """Deeds of mortal nodes until something befalls one; 0: nothing does."""

    def did(self, node: Node, what: str) -> None:
        """A node has committed or sent something: the moments at which it matters what befalls it."""
        self.say(node, what)
        if self.until_strike > 0 and node.mortal:
            self.until_strike -= 1
            if not self.until_strike:
                # Soon after it: before the node hears of it, or a few of its lines later.
                self._loop.until_strike = self._loop.chance.choice((1, 1, 2, 4, 8))

    def say(self, who: object, what: str) -> None:
        line = f"{self._loop.now:.4f} {who} {what}"
        self._sum = zlib.crc32(line.encode(), self._sum)
        if self.lines is not None:
            self.lines.append(line)

    def fault(self, who: object, kind: str, what: str = "") -> None:
        self.counts[kind] += 1
        self.say(who, f"! {kind} {what}")

    def digest(self) -> str:
        return f"{self._sum:08x}-{self._loop.steps}"


class Weather:
    """Rates are shares of what is sent, written or done; times are seconds."""

    def __init__(self, seed: int, loop: Loop, trace: Trace) -> None:
        self.loop = loop
        self.trace = trace
        self.chance = chance = random.Random(seed)
        foul = chance.choice((0.0, 0.3, 1.0, 1.0, 2.0))
        """Now and then all is well, so that nothing hides behind faults."""

        def rate(most: float, share: float = 0.5) -> float:
            """Nothing in some runs, so that each fault is met alone too."""
            return most * foul * chance.random() if chance.random() < share else 0.0

        self.lost = rate(0.06)
        self.doubled = rate(0.06)
        self.late = rate(0.08)
        self.slow_answers = rate(0.9, 0.3)
        """Share of answers that come so late that much may have happened meanwhile."""
        self.broker_away = rate(0.03, 0.3)
        self.database_away = rate(0.02, 0.4)
        self.commit_unknown = rate(0.05, 0.4)
        self.deadlock = rate(0.1, 0.5)
        self.slow_commit = rate(0.03)
        self.network_away = rate(0.1, 0.3)
        self.verb_fails = rate(0.05, 0.3)
        self.journal_fails = rate(0.02, 0.2)
        self.strikes = chance.choice((0, 1, 1, 2, 2, 3, 4, 6)) if foul else 0
        self.turns_between = chance.choice((60, 150, 400, 1000))
        """Turns of processes between two strikes, on average."""
        self.deeds_between = chance.choice((0, 4, 12, 30))
        """What processes commit and send between two strikes, on average; 0: turns count."""
        self.freezes = chance.choice((0.0, 0.2, 0.5))
        """Share of strikes that freeze a process, instead of killing it."""
        self.slowness = chance.choice((0.0005, 0.002, 0.01))
        """Of a statement, a message, a verb; on average."""
        self.skew = chance.choice((0.0, 0.0, 2.0, 90.0))
        """Between two processes' clocks at most."""
        self.cut_off: set[str] = set()
        """Hosts whose agents no message reaches."""

    def calm(self) -> None:
        """From now on nothing goes wrong any more."""
        self.slow_answers = 0.0
        self.lost = self.doubled = self.late = self.broker_away = self.database_away = self.commit_unknown = 0.0
        self.deadlock = self.slow_commit = self.network_away = self.verb_fails = self.journal_fails = 0.0
        self.strikes = 0
        self.loop.until_strike = self.trace.until_strike = 0
        self.cut_off.clear()

    def happens(self, rate: float) -> bool:
        return rate > 0.0 and self.chance.random() < rate

    def delay(self) -> float:
        return self.slowness * (0.1 + 1.8 * self.chance.random())

    async def pass_by(self) -> None:
        """What takes a moment takes one."""
        await asyncio.sleep(self.delay())

    def next_strike(self) -> None:
        if self.strikes > 0:
            self.strikes -= 1
            if self.deeds_between:
                self.trace.until_strike = 1 + int(self.chance.expovariate(1.0 / self.deeds_between))
            else:
                self.loop.until_strike = 1 + int(self.chance.expovariate(1.0 / self.turns_between))

    def deliveries(self, sender: Node, address: str, what: str) -> list[float]:
        """The delays after which copies of a message arrive."""
        if self.cut_off and (address.removeprefix("agent.") in self.cut_off or host_of(sender) in self.cut_off):
            self.trace.fault(sender, "cut off", f"{what} to {address}")
            return []
        if self.happens(self.lost):
            self.trace.fault(sender, "lost", f"{what} to {address}")
            return []
        delays = [self.delay()]
        if self.happens(self.late):
            delays = [self.chance.choice((0.5, 4.0, 20.0, 70.0)) * self.chance.random()]
            self.trace.fault(sender, "late", f"{what} to {address} by {delays[0]:.2f} s")
        if what == "Answer" and self.happens(self.slow_answers):
            delays = [8.0 * self.chance.random()]
            self.trace.fault(sender, "slow answer", f"by {delays[0]:.2f} s")
        if self.happens(self.doubled):
            delays.append(delays[0] + self.chance.choice((0.001, 1.0, 30.0)) * self.chance.random())
            self.trace.fault(sender, "doubled", f"{what} to {address}")
        return delays


def host_of(node: Node) -> str:
    """An agent's host; of other processes nothing that would be one."""
    return node.name.removeprefix("agent ").split("#")[0]


__all__ = ["Trace", "Weather", "current", "host_of"]
