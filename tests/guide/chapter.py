"""The guide's steps as it prints them: on which machine, which command, what is shown.

Passwords, prompts and names are its own; ids and times in what it shows stand as their shapes.
"""

from __future__ import annotations

from dataclasses import dataclass

CONTROLLER01, COMPUTE01 = "controller01", "compute01"


@dataclass(frozen=True)
class Step:
    machine: str
    command: str
    shown: tuple[str, ...] = ()
    """Regular expressions of the lines that the guide shows, in their order; of a table its rows."""


ID = r"[0-9a-f]{32}"
ENDPOINT = r"http://controller01:8774/v2/%\(tenant_id\)s"
_OK = r"Query OK, {} rows? affected \(\d+\.\d+ sec\)"
UNITS = tuple(
    f"openstack-nova-{name}.service" for name in ("api", "cert", "consoleauth", "scheduler", "conductor", "novncproxy")
)

DATABASE = Step(CONTROLLER01, "mysql -u root -p", (_OK.format(1), _OK.format(0), _OK.format(0), "Bye"))
SQL = (
    "CREATE DATABASE nova;",
    "GRANT ALL PRIVILEGES ON nova.* TO 'nova'@'localhost' IDENTIFIED BY 'Password123$';",
    "GRANT ALL PRIVILEGES ON nova.* TO 'nova'@'%' IDENTIFIED BY 'Password123$';",
    "exit",
)
"""What is typed in it."""
CREDENTIALS = Step(CONTROLLER01, "source ~/admin-openrc.sh")
USER = Step(
    CONTROLLER01,
    "openstack user create --domain default --password-prompt nova",
    ("Field Value", "domain_id default", "enabled True", f"id {ID}", "name nova"),
)
ROLE = Step(CONTROLLER01, "openstack role add --project service --user nova admin")
SERVICE = Step(
    CONTROLLER01,
    'openstack service create --name nova --description "OpenStack Compute" compute',
    ("Field Value", "description OpenStack Compute", "enabled True", f"id {ID}", "name nova", "type compute"),
)
ENDPOINTS = tuple(
    Step(
        CONTROLLER01,
        rf"openstack endpoint create --region RegionOne compute {interface} {ENDPOINT}",
        (
            "Field Value", "enabled True", f"id {ID}", f"interface {interface}", "region RegionOne",
            "region_id RegionOne", f"service_id {ID}", "service_name nova", "service_type compute",
            r"url http://controller01:8774/v2/%\(tenant_id\)s",
        ),
    )
    for interface in ("public", "internal", "admin")
)  # fmt: skip
PACKAGES = Step(
    CONTROLLER01,
    "yum install -y openstack-nova-api openstack-nova-cert openstack-nova-conductor openstack-nova-console "
    "openstack-nova-novncproxy openstack-nova-scheduler python-novaclient",
    ("Complete!",),
)
EDIT = Step(CONTROLLER01, "vi /etc/nova/nova.conf")
SYNC = Step(CONTROLLER01, 'su -s /bin/sh -c "nova-manage db sync" nova')
LOOK = Step(
    CONTROLLER01,
    "mysql -u nova -h controller01 -p",
    (
        r"Welcome to the MariaDB monitor\.  Commands end with ; or \\g\.",
        r"Your MariaDB connection id is \d+",
        r"Server version: \S*MariaDB.*",
        r"\| Database +\|", r"\| information_schema +\|", r"\| nova +\|", r"2 rows in set \(\d+\.\d+ sec\)",
        "Database changed",
        r"\| Tables_in_nova +\|", r"\d+ rows in set \(\d+\.\d+ sec\)",
        "Bye",
    ),
)  # fmt: skip
LOOK_SQL = ("SHOW DATABASES;", "USE nova;", "SHOW TABLES;", "exit")
ENABLE = Step(
    CONTROLLER01,
    "systemctl enable openstack-nova-api.service openstack-nova-cert.service openstack-nova-consoleauth.service "
    "openstack-nova-scheduler.service openstack-nova-conductor.service openstack-nova-novncproxy.service",
    tuple(
        f"Created symlink from /etc/systemd/system/multi-user.target.wants/{unit} to /usr/lib/systemd/system/{unit}."
        for unit in UNITS
    ),
)
START = Step(CONTROLLER01, ENABLE.command.replace("enable", "start"))
COMPUTE_PACKAGES = Step(COMPUTE01, "yum install -y openstack-nova-compute sysfsutils", ("Complete!",))
COMPUTE_EDIT = Step(COMPUTE01, "vi /etc/nova/nova.conf")
FLAGS = Step(COMPUTE01, "egrep -c '(vmx|svm)' /proc/cpuinfo", (r"\d+",))
COMPUTE_ENABLE = Step(COMPUTE01, "systemctl enable libvirtd.service openstack-nova-compute.service")
COMPUTE_START = Step(COMPUTE01, "systemctl start libvirtd.service openstack-nova-compute.service")

STEPS = (
    DATABASE, CREDENTIALS, USER, ROLE, SERVICE, *ENDPOINTS, PACKAGES, EDIT, SYNC, LOOK, ENABLE, START,
    COMPUTE_PACKAGES, COMPUTE_EDIT, FLAGS, COMPUTE_ENABLE, COMPUTE_START,
)  # fmt: skip
"""From the chapter's first line to its last."""
