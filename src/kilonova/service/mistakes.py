"""What of a nova.conf is known by name and has a value that is none, before a role stops at it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from oslo_config import cfg

from kilonova import config
from kilonova.agent.provider_config import read_provider_config
from kilonova.errors import Invalid
from kilonova.numa import read_reserved
from kilonova.pci import read_device_specs
from kilonova.service import deployment
from kilonova.service.agents import is_sim, machine_types, sim_options


def mistakes(conf: cfg.ConfigOpts) -> list[str]:
    """What would stop a role that reads it, one message each; a section that says nothing is one that no role needs."""
    looks: list[Callable[[], object]] = [
        lambda: deployment.broker(conf, "nova"),
        lambda: deployment.enabled_apis(conf),
        lambda: deployment.compute_listener(conf),
        lambda: deployment.metadata_listener(conf),
        lambda: deployment.console_listener(conf),
        lambda: deployment.image_verify(conf),
        lambda: config.metrics_settings(conf),
        *_of_the_domain(conf),
        lambda: is_sim(conf) and sim_options(conf, conf.my_ip),
        *_of_hosts(conf),
    ]
    if conf.database.connection:
        looks.append(lambda: deployment.database(conf))
    if conf.keystone_authtoken.username:
        looks.append(lambda: deployment.account(conf))
    if conf.neutron.username:
        looks.append(lambda: deployment.network_account(conf))
    return _said_by(looks)


def mistakes_of_one_machine(conf: cfg.ConfigOpts, *, simulated: bool) -> list[str]:
    """The same of what `kilonova up` reads of an operator's file; where its services are it says itself."""
    looks = [*_of_the_domain(conf), *_of_hosts(conf), lambda: config.metrics_settings(conf)]
    if simulated:
        looks.append(lambda: sim_options(conf, conf.my_ip))
    return _said_by(looks)


def _of_the_domain(conf: cfg.ConfigOpts) -> list[Callable[[], object]]:
    return [
        lambda: config.compute_settings(conf),
        lambda: config.api_settings(conf, identity_url=""),
        lambda: config.metadata_settings(conf),
    ]


def _of_hosts(conf: cfg.ConfigOpts) -> list[Callable[[], object]]:
    return [
        lambda: config.cpu_sets(conf),
        lambda: read_reserved(conf.reserved_huge_pages),
        lambda: read_device_specs(conf.pci.device_spec),
        lambda: machine_types(conf),
        lambda: read_provider_config(Path(conf.compute.provider_config_location), deployment.host_name(conf)),
    ]


def _said_by(looks: list[Callable[[], object]]) -> list[str]:
    found = []
    for look in looks:
        try:
            look()
        except Invalid as error:
            found.append(error.message)
    return list(dict.fromkeys(found))
