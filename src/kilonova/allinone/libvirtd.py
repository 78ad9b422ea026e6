"""A libvirt of the cloud's own: virtlogd and libvirtd whose every path lies in the state directory.

libvirtd has its directories compiled in, so each daemon gets a mount namespace in which those directories are the
cloud's. The machine's own libvirt, if there is one, never notices. Sockets live in directories that are visible
outside of the namespace too, so an ordinary connection URI reaches them.

The daemons and the guests outlive `kilonova up`; the next one finds them by pid and start time.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kilonova import netns
from kilonova.allinone import processes
from kilonova.allinone.files import tail, write_private
from kilonova.allinone.settings import cloud_id_of
from kilonova.errors import Unavailable

SOCKET_PATH_LIMIT = 107
"""Bytes that a Unix socket's address holds (unix(7))."""

_PACKAGES = "apt-get install libvirt-daemon-system qemu-system-x86 qemu-utils (or: make setup)"
_REAPER = Path(__file__).with_name("reaper.py")
_MOUNTS = {
    "libvirt/etc": "/etc/libvirt",
    "libvirt/lib": "/var/lib/libvirt",
    "libvirt/cache": "/var/cache/libvirt",
    "log/libvirt": "/var/log/libvirt",
    "run/libvirt": "/run/libvirt",
}

_LIBVIRTD_CONF = """\
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
unix_sock_ro_perms = "0700"
host_uuid = "{host_uuid}"
log_filters = "3:*"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

# Guests run as root so that they can open disks in a private state directory; without cgroups and namespaces of
# libvirt's own it works in a container as well.
_QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
remember_owner = 0
stdio_handler = "logd"
vnc_listen = "127.0.0.1"
# Screens of several clouds on one machine: each looks for free ports in a part of its own first.
remote_display_port_min = {first_screen}
remote_display_port_max = 65535
auto_dump_path = "/var/lib/libvirt/qemu/dump"
"""


def probe_hypervisor() -> Unavailable | None:
    """Why this machine and this user cannot run guests on libvirt, with the remedy; None when they can."""
    if os.geteuid() != 0:
        return Unavailable("libvirt guests need root: run as root, or use --hypervisor sim")
    if shutil.which("qemu-system-x86_64", path=processes.SYSTEM_PATH) is None:
        return Unavailable(f"QEMU is not installed (qemu-system-x86_64 not found): {_PACKAGES}")
    for daemon in ("libvirtd", "virtlogd"):
        if shutil.which(daemon, path=processes.SYSTEM_PATH) is None:
            return Unavailable(f"libvirt is not installed ({daemon} not found): {_PACKAGES}")
    if importlib.util.find_spec("libvirt") is None:
        return Unavailable("libvirt's Python binding is not installed: run 'make setup' as root (it needs libvirt-dev)")
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, timeout=10, check=False)
    if probe.returncode != 0:
        return Unavailable(
            f"this machine does not allow mount namespaces ({probe.stderr.strip()}): "
            "give the container CAP_SYS_ADMIN, or use --hypervisor sim"
        )
    return None


def libvirt_uri(state_dir: Path) -> str:
    """The connection URI of this state directory's libvirtd, whether it runs or not."""
    query = urllib.parse.urlencode({"socket": str(_socket_dir(state_dir) / "libvirt-sock")}, safe="/")
    return f"qemu+unix:///system?{query}"


def ensure_libvirtd(state_dir: Path, network: Path | None = None) -> str:
    """Start (or find running) the state directory's libvirtd, and return its URI.

    `network`: the network namespace that it and the guests live in; None: ours. Blocks for up to 20 s. Raises
    Unavailable with the reason and the end of the daemon's log.
    """
    state_dir = state_dir.resolve()
    unavailable = probe_hypervisor()
    if unavailable is not None:
        raise unavailable
    with _locked(state_dir):
        _prepare(state_dir)
        if network is not None:
            _ensure_network(state_dir, network)
        uri = libvirt_uri(state_dir)
        started = [
            _ensure_daemon(state_dir, "virtlogd", "virtlogd-sock", network),
            _ensure_daemon(state_dir, "libvirtd", "libvirt-sock", network),
        ]
        if any(started):
            _check_answers(state_dir, uri)
    return uri


def running(state_dir: Path) -> processes.ProcessId | None:
    """The state directory's libvirtd, when it runs."""
    return processes.recall(_record(state_dir.resolve(), "libvirtd"))


def guest_pids(state_dir: Path) -> list[int]:
    """Pids of the state directory's QEMU processes, whether or not libvirtd runs."""
    pids = []
    for path in sorted((state_dir / "run/libvirt/qemu").glob("*.pid")):
        with suppress(ValueError, OSError):
            pid = int(path.read_text())
            # The command line holds the guest's name: a recycled pid is some other program.
            if f"guest={path.stem}," in processes.command_line(pid):
                pids.append(pid)
    return pids


def stop_libvirtd(state_dir: Path, *, guests: bool, grace: float = 10.0) -> None:
    """End the daemons; with `guests`, power all guests off first (at once, as pulling the plug does)."""
    state_dir = state_dir.resolve()
    if not (state_dir / "run").is_dir():
        return
    with _locked(state_dir):
        libvirtd = processes.recall(_record(state_dir, "libvirtd"))
        if guests and libvirtd is not None:
            _destroy_guests(libvirt_uri(state_dir))
        if guests:
            for pid in guest_pids(state_dir):
                guest = processes.identify(pid)
                if guest is not None:
                    processes.end(guest, grace=1.0)
        for name in ("libvirtd", "virtlogd"):
            daemon = processes.recall(_record(state_dir, name))
            # virtlogd holds the guests' console pipes: as long as guests run it must stay.
            if daemon is not None and (name == "libvirtd" or not guest_pids(state_dir)):
                processes.end(daemon, grace=grace)
                _record(state_dir, name).unlink(missing_ok=True)
        link = _link(state_dir)
        if link.is_symlink() and not guest_pids(state_dir):
            link.unlink()


def _link(state_dir: Path) -> Path:
    return Path(f"/run/kilonova-{cloud_id_of(str(state_dir))}")


def _socket_dir(state_dir: Path) -> Path:
    """The directory of libvirtd's sockets under a name short enough for a socket's address."""
    direct = state_dir.resolve() / "run/libvirt"
    if len(os.fsencode(direct / "libvirt-admin-sock")) <= SOCKET_PATH_LIMIT:
        return direct
    return _link(state_dir.resolve())


def _record(state_dir: Path, name: str) -> Path:
    return state_dir / "run" / f"{name}.json"


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    (state_dir / "run").mkdir(parents=True, exist_ok=True)
    with (state_dir / "run/libvirtd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepare(state_dir: Path) -> None:
    boot_file = state_dir / "run/boot-id"
    if not boot_file.is_file() or boot_file.read_text() != processes.boot_id():
        # libvirt takes what it finds under /run for live; after a reboot of the machine nothing there is.
        shutil.rmtree(state_dir / "run/libvirt", ignore_errors=True)
        write_private(boot_file, processes.boot_id())
    for ours, theirs in _MOUNTS.items():
        (state_dir / ours).mkdir(parents=True, exist_ok=True)
        Path(theirs).mkdir(parents=True, exist_ok=True)
    uuid_file = state_dir / "libvirt/host-uuid"
    if not uuid_file.is_file():
        write_private(uuid_file, str(uuid.uuid4()))
    etc = state_dir / "libvirt/etc"
    write_private(etc / "libvirtd.conf", _LIBVIRTD_CONF.format(host_uuid=uuid_file.read_text()))
    write_private(etc / "qemu.conf", _QEMU_CONF.format(first_screen=_first_screen(state_dir)))
    write_private(etc / "virtlogd.conf", 'log_outputs = "3:file:/var/log/libvirt/virtlogd.log"\n')
    sockets = _socket_dir(state_dir)
    if sockets == _link(state_dir) and not sockets.is_symlink():
        sockets.symlink_to(state_dir / "run/libvirt")


def _first_screen(state_dir: Path) -> int:
    """The first port for guests' screens, stable for a state directory; of 400 places with room for 50 each."""
    return 20000 + int.from_bytes(hashlib.sha256(str(state_dir).encode()).digest()[:4]) % 400 * 50


def _ensure_network(state_dir: Path, network: Path) -> None:
    """The namespace is there, with the guests that run in it. Raises Unavailable when they run elsewhere."""
    guests = guest_pids(state_dir)
    netns.ensure(network.name, of_process=guests[0] if guests else None)
    if any(not _lives_in(pid, network) for pid in guests):
        raise Unavailable(
            "guests run outside of the cloud's network namespace, from before it had networks: end them with "
            "'kilonova down --stop-guests', or go on with '--networking none'"
        )
    for name in ("libvirtd", "virtlogd"):
        daemon = processes.recall(_record(state_dir, name))
        if daemon is not None and not _lives_in(daemon.pid, network) and not guests:
            processes.end(daemon, grace=10.0)


def _lives_in(pid: int, network: Path) -> bool:
    with suppress(OSError):
        return os.path.samefile(f"/proc/{pid}/ns/net", network)
    return True


def _ensure_daemon(state_dir: Path, name: str, socket_name: str, network: Path | None) -> bool:
    """Whether the daemon had to be started."""
    address = _socket_dir(state_dir) / socket_name
    found = processes.recall(_record(state_dir, name)) or _started(state_dir, name)
    if found is not None and _accepts(address):
        processes.remember(_record(state_dir, name), found)
        return False
    mounts = [shlex.join(["mount", "--bind", str(state_dir / ours), theirs]) for ours, theirs in _MOUNTS.items()]
    daemon = [name, "--pid-file", f"/run/libvirt/{name}.pid", "--config", f"/etc/libvirt/{name}.conf"]
    if name == "libvirtd":
        daemon = [sys.executable, "-I", "-S", str(_REAPER), *daemon]
    script = "\n".join(["set -e", *mounts, "cd /", f"exec {shlex.join(daemon)}"])
    log = state_dir / "log" / f"{name}.log"
    within = [] if network is None else ["nsenter", f"--net={network}"]
    launched = processes.spawn_detached(
        [*within, "unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        log,
        {"PATH": processes.SYSTEM_PATH, "LC_ALL": "C.UTF-8", "HOME": "/root"},
    )
    deadline = time.monotonic() + 15
    while True:
        identity = _started(state_dir, name)
        if identity is not None and _accepts(address):
            break
        if processes.identify(launched) is None:
            raise Unavailable(f"{name} ended as soon as it started: {tail(log)}")
        if time.monotonic() > deadline:
            raise Unavailable(f"{name} does not answer after 15 s; its log is {log}: {tail(log)}")
        time.sleep(0.02)
    processes.remember(_record(state_dir, name), identity)
    return True


def _started(state_dir: Path, name: str) -> processes.ProcessId | None:
    """The daemon that the pid file names, if it is one and its /run/libvirt is this cloud's."""
    ours = state_dir / "run/libvirt"
    try:
        pid = int((ours / f"{name}.pid").read_text())
        same = os.path.samefile(f"/proc/{pid}/root/run/libvirt", ours)
    except (OSError, ValueError):
        return None
    return processes.identify(pid) if same and processes.command_line(pid).startswith(name) else None


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


# In a process of its own: libvirt's event loop has to be set up before the first connection of a process is opened,
# and that is the driver's business.
_CHECK = "import sys, libvirt; libvirt.open(sys.argv[1]).getVersion()"
_DESTROY = """
import sys, libvirt
connection = libvirt.open(sys.argv[1])
for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        print(domain.name(), error, file=sys.stderr)
"""


def _check_answers(state_dir: Path, uri: str) -> None:
    check = subprocess.run([sys.executable, "-c", _CHECK, uri], capture_output=True, text=True, timeout=30, check=False)
    if check.returncode != 0:
        reason = check.stderr.strip().splitlines()
        log = state_dir / "log/libvirt/libvirtd.log"
        raise Unavailable(f"libvirtd does not answer: {reason[-1] if reason else ''}; see {log}: {tail(log, 3)}")


def _destroy_guests(uri: str) -> None:
    with suppress(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", _DESTROY, uri], capture_output=True, timeout=60, check=False)
