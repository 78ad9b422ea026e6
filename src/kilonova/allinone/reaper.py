"""Runs a daemon and collects its orphans: `PYTHON -I -S reaper.py COMMAND...`; ends when the last of them has ended.

libvirt waits until a QEMU that it has stopped is gone from the process table. QEMU makes itself an orphan when it
starts, so pid 1 has to collect it; in many containers pid 1 does that late (seconds for each stop) or never.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


def main() -> None:
    """Exit with the daemon's own status when that ends before anything else does."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    daemon = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    status = 0
    while True:
        try:
            pid, ended = os.wait()
        except ChildProcessError:
            sys.exit(status)
        if pid == daemon:
            status = os.waitstatus_to_exitcode(ended) & 0xFF


if __name__ == "__main__":
    main()
