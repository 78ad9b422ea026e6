"""Running disk tools: argument lists, a deadline, limits, and what they said on stderr in the error."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable

from kilonova.errors import HostFailure

_PATH = os.pathsep.join(("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"))
GIB = 1024**3


class ToolFailed(HostFailure):
    """A tool ended with an error. `stderr` is what it said, `exit_status` None when it could not end."""

    def __init__(self, tool: str, reason: str, stderr: str = "", exit_status: int | None = None) -> None:
        super().__init__(f"{tool} failed on this host: {reason}")
        self.stderr = stderr
        self.exit_status = exit_status

    @property
    def disk_full(self) -> bool:
        return "No space left on device" in self.stderr


async def run(
    *command: str,
    timeout: float = 60.0,
    cpu_seconds: int | None = None,
    address_space: int | None = None,
    umask: int = 0o022,
    on_output: Callable[[bytes], Awaitable[None]] | None = None,
) -> bytes:
    """The standard output of a tool that ended well.

    `timeout` in seconds, `address_space` in bytes, `umask` of the files it makes. The tool dies with us (also
    when we are killed) and with its caller's cancellation. Raises ToolFailed.
    """
    tool = command[0]
    program = shutil.which(tool, path=_PATH)
    if program is None:
        raise ToolFailed(tool, "it is not installed")
    # The shell sets the umask since uvloop's subprocesses cannot.
    wrapped = [
        "sh",
        "-c",
        f'umask {umask:04o}; exec "$@"',
        "sh",
        "setpriv",
        "--pdeathsig",
        "KILL",
        "prlimit",
        "--core=0",
    ]
    if cpu_seconds is not None:
        wrapped.append(f"--cpu={cpu_seconds}")
    if address_space is not None:
        wrapped.append(f"--as={address_space}")
    process = await asyncio.create_subprocess_exec(
        *wrapped,
        program,
        *command[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
    )
    try:
        async with asyncio.timeout(timeout):
            if on_output is None:
                out, err = await process.communicate()
            else:
                out, err = b"", await _stream(process, on_output)
    except TimeoutError:
        await _kill(process)
        raise ToolFailed(tool, f"it did not end within {timeout:g} s") from None
    except BaseException:
        await _kill(process)
        raise
    if process.returncode:
        said = err.decode(errors="replace").strip()
        reason = said.splitlines()[-1][:500] if said else f"exit status {process.returncode}"
        raise ToolFailed(tool, reason, said, process.returncode)
    return out


async def _stream(process: asyncio.subprocess.Process, on_output: Callable[[bytes], Awaitable[None]]) -> bytes:
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.ensure_future(process.stderr.read())
    try:
        while chunk := await process.stdout.read(4096):
            await on_output(chunk)
        await process.wait()
        return await errors
    finally:
        errors.cancel()


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    # Its pipes may be held open by nobody else: this ends at once.
    await asyncio.shield(asyncio.ensure_future(process.wait()))
