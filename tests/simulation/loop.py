"""An event loop that runs several processes' loops in one thread, as a seed says.

Each `Node` stands for a process: what its tasks have to do next stands in a queue of its own, in the order that
asyncio promises within one process. Which node goes next is the seed's choice, and so is what may happen after
each of its turns. Time moves only when nobody has anything left to do. A node that is killed never gets another
turn: not a line of it runs any more, no `finally` either. One that is frozen gets none until it is thawed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_node: contextvars.ContextVar[Node] = contextvars.ContextVar("node")


def current() -> Node:
    """The node whose turn it is."""
    return _node.get()


class Stuck(Exception):
    """Everybody waits for something that will never come, or goes round in circles."""


class Handle:
    """What asyncio's handles are, as far as tasks, futures and time-outs use them."""

    __slots__ = ("args", "callback", "context", "gone", "node", "time")

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context, node: Node, time: float
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.node = node
        self.time = time
        self.gone = False

    def cancel(self) -> None:
        self.gone = True

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.time


class Node:
    def __init__(self, loop: Loop, name: str, *, mortal: bool = True) -> None:
        self.loop = loop
        self.name = name
        self.mortal = mortal
        """Whether anything may happen to it."""
        self.dead = False
        self.frozen = False
        self.queued = False
        """It stands among those that have something to do."""
        self.ready: deque[Handle] = deque()
        self.tasks: list[asyncio.Task[Any]] = []
        self._sweep_at = 64
        self._context = contextvars.Context()
        self._context.run(_node.set, self)

    def __repr__(self) -> str:
        return self.name

    def context(self) -> contextvars.Context:
        """For what is to be done by this node."""
        return self._context.copy()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        return self.loop.create_task(work, context=self.context())

    def add(self, task: asyncio.Task[Any]) -> None:
        """Hold on to it: the dead wait for ever, and are not to be collected meanwhile."""
        self.tasks.append(task)
        if len(self.tasks) > self._sweep_at:
            self.tasks = [each for each in self.tasks if not each.done()]
            self._sweep_at = 2 * len(self.tasks) + 64


class Loop(asyncio.AbstractEventLoop):
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = 0.0
        self.steps = 0
        self.most_steps = 1_000_000
        self.until_strike = 0
        """Turns of mortal nodes until `strike` is called with one of them; 0 or less: never."""
        self.strike: Callable[[Node], None] = lambda node: None
        self.complaints: list[str] = []
        """What asyncio had to say: exceptions that nobody looked at."""
        self.nodes: list[Node] = []
        self._active: list[Node] = []
        self._timers: list[tuple[float, int, Handle]] = []
        self._number = 0
        self.world = self.node("world", mortal=False)

    def node(self, name: str, *, mortal: bool = True) -> Node:
        made = Node(self, name, mortal=mortal)
        self.nodes.append(made)
        return made

    # -- life and death
    def kill(self, node: Node) -> None:
        node.dead = True
        node.ready.clear()
        self._leave(node)

    def freeze(self, node: Node) -> None:
        node.frozen = True
        self._leave(node)

    def thaw(self, node: Node) -> None:
        node.frozen = False
        if node.ready and not node.dead:
            self._enter(node)

    def _enter(self, node: Node) -> None:
        if not node.queued and not node.frozen:
            node.queued = True
            self._active.append(node)

    def _leave(self, node: Node) -> None:
        if node.queued:
            node.queued = False
            self._active.remove(node)

    # -- what asyncio asks of a loop
    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[T]:
        if context is None:
            context = contextvars.copy_context()
        task = asyncio.Task(coro, loop=self, context=context)
        context[_node].add(task)
        return task

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        if context is None:
            context = contextvars.copy_context()
        node = context.get(_node) or self.world
        handle = Handle(callback, args, context, node, 0.0)
        if not node.dead:
            node.ready.append(handle)
            self._enter(node)
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        if context is None:
            context = contextvars.copy_context()
        handle = Handle(callback, args, context, context.get(_node) or self.world, when)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, handle))
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """At once: there are no threads here."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context.get('message')} {context.get('exception')!r}")

    # -- running
    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` as the world, until it ends. Raises what it raises, or Stuck."""
        events._set_running_loop(self)
        try:
            task = self.world.spawn(main)
            while not task.done():
                self._step()
            return task.result()
        finally:
            try:
                self._end()
            finally:
                events._set_running_loop(None)

    def _step(self) -> None:
        active = self._active
        while not active:
            self._pass_time()
        count = len(active)
        place = int(self.chance.random() * count) if count > 1 else 0
        node = active[place]
        handle = node.ready.popleft()
        if not node.ready:
            node.queued = False
            last = active.pop()
            if last is not node:
                active[place] = last
        if handle.gone:
            return
        self.steps += 1
        if self.steps > self.most_steps:
            raise Stuck(f"no rest after {self.steps} turns, at {self.now:.3f} s")
        handle.context.run(handle.callback, *handle.args)
        if node.mortal and self.until_strike > 0:
            self.until_strike -= 1
            if not self.until_strike:
                self.strike(node)

    def _pass_time(self) -> None:
        timers = self._timers
        while timers and (timers[0][2].gone or timers[0][2].node.dead):
            heapq.heappop(timers)
        if not timers:
            raise Stuck(f"everybody waits, at {self.now:.3f} s")
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            handle = heapq.heappop(timers)[2]
            node = handle.node
            if not (handle.gone or node.dead):
                node.ready.append(handle)
                self._enter(node)

    def _end(self) -> None:
        """Nobody is left: what was under way is taken apart, and nothing comes of it any more."""
        self.until_strike = 0
        self._timers.clear()
        for node in self.nodes:
            node.dead = False
            node.frozen = True
        for node in self.nodes:
            for task in node.tasks:
                if not task.done():
                    task.cancel()
        for _ in range(20):
            ready = [node.ready.popleft() for node in self.nodes for _ in range(len(node.ready))]
            for handle in ready:
                with contextlib.suppress(Exception):
                    handle.context.run(handle.callback, *handle.args)
        for node in self.nodes:
            for task in node.tasks:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    with contextlib.suppress(BaseException):
                        task.get_coro().close()  # type: ignore[union-attr]
                elif not task.cancelled():
                    task.exception()
        self._timers.clear()
