"""What can go wrong when a cloud is brought up, each with what to do about it."""

from __future__ import annotations

import errno
from pathlib import Path


class CloudError(Exception):
    """Shown to the user as it is: what is wrong, and `remedy`, what to do about it."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def from_os_error(error: OSError, state_dir: Path) -> CloudError:
    """The user's words for an operating system's error at work on the state directory."""
    place = str(error.filename or state_dir)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CloudError(f"the disk that holds {place} is full", remedy="free some space, or use another --state-dir")
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = "run as the user who owns it, or use another --state-dir"
        return CloudError(f"no permission for {place}", remedy=remedy)
    if error.errno == errno.EROFS:
        return CloudError(f"{place} is on a read-only file system", remedy="use another --state-dir")
    return CloudError(f"{place}: {error.strerror or error}")
