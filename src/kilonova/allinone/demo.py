"""What `kilonova demo` does on a cloud that is up: image, flavor, key pair, and a server that says 'guest ready'.

The steps a user would take are taken with the ordinary client, and shown; questions in between go by the SDK, since
the client takes a second for each.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from kilonova.allinone import external, screenshot
from kilonova.allinone.clients import clouds_yaml_path
from kilonova.allinone.errors import CloudError
from kilonova.allinone.files import write_private
from kilonova.allinone.settings import CloudSettings

IMAGE, FLAVOR, KEY, SERVER = "tiny", "m1.nano", "demo", "demo"
NETWORK, ROUTER, GROUP = "demo", "demo", "demo"
RANGE = "10.20.0.0/24"
READY = re.compile(r"guest ready \S+ \S+")
"""What the guest prints on its console when its own start is complete."""

PASSWORD = "password"
"""The file with root's, of which Compute itself keeps nothing."""

BOOT_TIME = 300.0
"""Seconds until the guest must be ready: 6 on a free machine, 35 on a loaded one without hardware virtualisation."""

USER_DATA = """\
#!/bin/sh
echo "hello from user data"
"""

LOOK_AROUND = """\
echo "I am $(hostname), up for $(cut -d. -f1 /proc/uptime) s"
ip -4 -o addr show dev eth0 | awk '{ print "my address:", $4 }'
echo "the metadata service says of me:"
for name in instance-id hostname instance-type local-ipv4 public-ipv4 placement/availability-zone; do
  echo "  $name: $(wget -q -O - http://169.254.169.254/latest/meta-data/$name)"
done
"""
"""What is asked over SSH."""

Say = Callable[[str], None]


class Client:
    """The `openstack` command and the SDK on one cloud, as its admin."""

    def __init__(self, settings: CloudSettings, say: Say) -> None:
        self._program = Path(sys.executable).with_name("openstack")
        if not self._program.exists():
            raise CloudError("the openstack client is not installed", remedy="run 'make setup'")
        import openstack.config

        self._say = say
        clouds = str(clouds_yaml_path(settings.state_dir))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        self._environment = environment | {"OS_CLIENT_CONFIG_FILE": clouds, "OS_CLOUD": "kilonova"}
        config = openstack.config.OpenStackConfig(config_files=[clouds], load_envvars=False)
        self.sdk: Any = openstack.connection.Connection(config=config.get_one("kilonova"))

    def show(self, *words: str, timeout: float = 120) -> str:
        """Run a command before the user's eyes. Raises CloudError with what it said."""
        self._say(f"$ openstack {shlex.join(words)}")
        done = subprocess.run(
            [str(self._program), *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise CloudError(f"openstack {words[0]} {words[1]} failed: {done.stderr.strip()[-1000:]}")
        return done.stdout


def ensure_image(client: Client, image: Path, disk_format: str) -> None:
    """Upload the guest image, unless this very one is there. An older one gives up its name."""
    found = client.sdk.image.find_image(IMAGE)
    if found is not None:
        if found.status == "active" and found.properties.get("kilonova_build") == image.name:
            return
        client.sdk.image.update_image(found, name=f"{IMAGE}-before-{found.id[:8]}")
    client.show(
        *("image", "create", "--public", "--disk-format", disk_format, "--container-format", "bare"),
        *("--property", f"kilonova_build={image.name}", "--file", str(image), IMAGE),
    )


def ensure_flavor(client: Client) -> None:
    """One processor, 128 MiB of memory (96 is the least that boots), 1 GiB of disk."""
    if client.sdk.compute.find_flavor(FLAVOR) is None:
        client.show("flavor", "create", "--vcpus", "1", "--ram", "128", "--disk", "1", FLAVOR)


def ensure_key(client: Client, directory: Path) -> Path:
    """A key pair whose private half lies in the state directory; its path."""
    private = directory / "id_ed25519"
    if not private.exists():
        key = ed25519.Ed25519PrivateKey.generate()
        openssh, raw = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        write_private(private.with_suffix(".pub"), public + b"\n")
        write_private(private, key.private_bytes(serialization.Encoding.PEM, openssh, raw))
        client.sdk.compute.delete_keypair(KEY, ignore_missing=True)
    if client.sdk.compute.find_keypair(KEY) is None:
        client.show("keypair", "create", "--public-key", str(private.with_suffix(".pub")), KEY)
    return private


def ensure_network(client: Client) -> None:
    """A network with a router to the external one, and a security group that lets SSH and ICMP in."""
    network = client.sdk.network
    if network.find_network(NETWORK) is None:
        client.show("network", "create", NETWORK)
    if network.find_subnet(NETWORK) is None:
        client.show("subnet", "create", "--network", NETWORK, "--subnet-range", RANGE, NETWORK)
    if network.find_router(ROUTER) is None:
        client.show("router", "create", "--external-gateway", external.NAME, ROUTER)
    router, subnet = network.find_router(ROUTER), network.find_subnet(NETWORK)
    if not any(ip["subnet_id"] == subnet.id for port in network.ports(device_id=router.id) for ip in port.fixed_ips):
        client.show("router", "add", "subnet", ROUTER, NETWORK)
    group = network.find_security_group(GROUP)
    if group is None:
        client.show("security", "group", "create", GROUP)
        client.show("security", "group", "rule", "create", "--protocol", "tcp", "--dst-port", "22", GROUP)
        client.show("security", "group", "rule", "create", "--protocol", "icmp", GROUP)


def ensure_floating_ip(client: Client) -> str:
    """The server's floating IP."""
    network = client.sdk.network
    server = client.sdk.compute.find_server(SERVER, ignore_missing=False)
    (port,) = network.ports(device_id=server.id)
    for floating in network.ips(port_id=port.id):
        return str(floating.floating_ip_address)
    free = next((str(each.floating_ip_address) for each in network.ips() if each.port_id is None), None)
    if free is None:
        shown = json.loads(client.show("floating", "ip", "create", "-f", "json", external.NAME))
        free = str(shown["floating_ip_address"])
    client.show("server", "add", "floating", "ip", SERVER, free)
    return free


def login(address: str, private_key: Path, say: Say) -> str:
    """What the guest says of itself over SSH. Raises CloudError when it does not let us in."""
    options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5"]
    words = ["ssh", "-i", str(private_key), *(f"-o{each}" for each in options), f"root@{address}", LOOK_AROUND]
    say(f"$ ssh -i {private_key} root@{address}")
    deadline = time.monotonic() + BOOT_TIME
    while True:
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 255:
            return done.stdout
        if time.monotonic() > deadline:
            raise CloudError(f"no login at {address}: {done.stderr.strip()}")
        time.sleep(0.5)


def ensure_server(client: Client, settings: CloudSettings, directory: Path, say: Say) -> None:
    """Boot the server and show its operation's steps as they happen; one that already runs is left alone."""
    found = client.sdk.compute.find_server(SERVER)
    if found is not None:
        if client.sdk.compute.get_server(found).status == "ACTIVE":
            say(f"server {SERVER} already runs")
            return
        client.show("server", "delete", "--wait", SERVER)
    user_data = directory / "user-data"
    write_private(user_data, USER_DATA)
    networks = (
        ("--network", NETWORK, "--security-group", GROUP) if settings.networking == "neutron" else ("--nic", "none")
    )
    command = (
        *("server", "create", "--image", IMAGE, "--flavor", FLAVOR, "--key-name", KEY, *networks),
        *("--user-data", str(user_data), "--config-drive", "true", "-f", "json", "--wait", SERVER),
    )
    failure: list[CloudError] = []

    def create() -> None:
        try:
            created = client.show(*command, timeout=BOOT_TIME)
            password = re.search(r'"adminPass": "([^"]+)"', created)
            if password is not None:
                write_private(directory / PASSWORD, password[1])
        except CloudError as error:
            failure.append(error)

    database = settings.data_dir / "compute.sqlite"
    last = last_operation(database)
    # The client takes a second or two to start and to end; the steps are shown meanwhile.
    creating = threading.Thread(target=create)
    creating.start()
    for line in follow(database, last, creating.is_alive):
        say(f"    {line}")
    creating.join()
    if failure:
        found = client.sdk.compute.find_server(SERVER)
        fault = client.sdk.compute.get_server(found).fault if found is not None else None
        reason = fault.get("message") if fault else None
        raise CloudError(reason or failure[0].message, remedy=f"see {settings.log_dir}")


def wait_for_guest(client: Client, say: Say) -> str:
    """The guest's console up to its own word that it is ready. Raises CloudError when that does not come."""
    deadline = time.monotonic() + BOOT_TIME
    server = client.sdk.compute.find_server(SERVER, ignore_missing=False)
    while True:
        console = str(client.sdk.compute.get_server_console_output(server)["output"])
        if READY.search(console):
            return console
        if time.monotonic() > deadline:
            raise CloudError(
                f"the guest did not say that it is ready within {BOOT_TIME:.0f} s; its console ends with:\n"
                + "\n".join(console.splitlines()[-10:])
            )
        time.sleep(0.3)


def picture_of_screen(client: Client, path: Path, say: Say) -> None:
    """Write what the guest's screen shows as PNG. Raises CloudError when it shows nothing."""
    server = client.sdk.compute.find_server(SERVER, ignore_missing=False)
    deadline = time.monotonic() + BOOT_TIME
    while True:
        url = str(client.sdk.compute.create_console(server, "novnc")["url"])
        try:
            picture = screenshot.save(url, path)
        except CloudError as error:
            if time.monotonic() > deadline:
                raise
            say(f"({error.message}; once more)")
            time.sleep(1)
            continue
        say(f"the screen, {picture.width} x {picture.height} in {picture.colours()} colours: {path}")
        return


def console_url(client: Client, kind: str) -> str:
    """An address that nobody has used yet. `kind`: novnc or serial."""
    return client.show("console", "url", "show", f"--{kind}", "-f", "value", "-c", "url", SERVER).strip()


def last_operation(database: Path) -> int:
    """The number of the newest operation."""
    with closing(_read_only(database)) as connection:
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM instance_actions").fetchone()[0])


def follow(database: Path, after: int, going_on: Callable[[], bool]) -> Iterator[str]:
    """A line for each thing that the first operation after number `after` gets done, and for its per cent meanwhile."""
    with closing(_read_only(database)) as connection:
        seen: set[str] = set()
        while True:
            more = going_on()
            for line in _lines(connection, after):
                if line not in seen:
                    yield line
                seen.add(line)
            if not more:
                return
            time.sleep(0.05)


def _lines(connection: sqlite3.Connection, after: int) -> Iterator[str]:
    operation = connection.execute(
        "SELECT id, progress FROM instance_actions WHERE id > ? ORDER BY id LIMIT 1", (after,)
    ).fetchone()
    if operation is None:
        return
    steps = connection.execute(
        """
        SELECT name, host, result, (julianday(finished_at) - julianday(started_at)) * 86400
        FROM instance_actions_events WHERE operation_id = ? AND result IS NOT NULL ORDER BY id
        """,
        (operation[0],),
    )
    for name, host, result, seconds in steps:
        yield f"{name}: {'done' if result == 'Success' else result} ({seconds:.2f} s, host {host})"
    progress = json.loads(operation[1]) if operation[1] else None
    if progress:
        yield f"{progress['stage']}: {progress['percent']} %"


def _read_only(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)
