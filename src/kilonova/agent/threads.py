"""Blocking work beside the event loop: daemon threads, deadlines, and no work left behind by a cancelled caller."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from kilonova.errors import Transient

T = TypeVar("T")


class Pool:
    """At most `size` threads, made when needed. They are daemons: a call that hangs never keeps the process alive."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, call: Callable[[], T]) -> concurrent.futures.Future[T]:
        """Queue a call; its future ends with the call's result or exception."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._lock:
            if self._closed:
                raise RuntimeError(f"the thread pool {self._name} is closed")
            self._work.put(work)
            if self._idle == 0 and len(self._threads) < self._size:
                thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def close(self) -> None:
        """Let the threads end when their calls do; does not wait."""
        with self._lock:
            self._closed = True
            for _ in self._threads:
                self._work.put(None)

    async def run(self, call: Callable[[], T], *, deadline: float, what: str) -> T:
        """The result of a blocking call. Raises Transient after `deadline` seconds.

        A thread cannot be stopped: a cancelled caller waits for the call (until its deadline), so that whatever
        comes next for the same guest does not meet it half done.
        """
        future = asyncio.wrap_future(self.submit(call))
        try:
            async with asyncio.timeout(deadline):
                return await asyncio.shield(future)
        except TimeoutError:
            if future.done():
                return future.result()
            future.add_done_callback(_forget)
            raise Transient(f"{what} did not answer within {deadline:g} s.") from None
        except asyncio.CancelledError:
            await _outlast(future, deadline)
            raise

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            work = self._work.get()
            with self._lock:
                self._idle -= 1
            if work is None:
                return
            work()


async def in_thread(call: Callable[[], T], *, patience: float = 60.0) -> T:
    """A blocking call on files in a thread. A cancelled caller waits for it, at most `patience` seconds."""
    future = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await _outlast(future, patience)
        raise


async def _outlast(future: asyncio.Future[T], seconds: float) -> None:
    """Wait for the call although our own caller is cancelled, possibly more than once."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while not future.done() and (left := until - loop.time()) > 0:
        try:
            await asyncio.wait({future}, timeout=left)
        except asyncio.CancelledError:
            continue
    future.add_done_callback(_forget)


def _forget(future: asyncio.Future[T]) -> None:
    """Nobody waits any more: take the exception, so that asyncio does not complain about it."""
    if not future.cancelled():
        future.exception()
