"""The broker: each one that is named, its virtual host, and what the user may do there."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Sequence

import aio_pika
import aiormq.exceptions

from kilonova.bus.identity import AGENT
from kilonova.bus.link import within
from kilonova.bus.rabbit import QUEUE_ARGUMENTS, RabbitOptions
from kilonova.bus.transport import BrokerAddress
from kilonova.doctor.findings import Finding, ok, warning, wrong
from kilonova.doctor.site import Site, is_agents

PATIENCE = 8.0
MOST = 200
"""Planes that are looked for."""
_OPTION = "transport_url (or [oslo_messaging_rabbit])"


async def look(site: Site) -> list[Finding]:
    """One line for each broker: of several, one has to answer, and those that do have to be one cluster."""
    assert site.broker is not None
    brokers = site.broker.brokers
    found = [await _one(site, site.broker, address) for address in brokers]
    answering = [address for address, each in zip(brokers, found, strict=True) if each.result == "ok"]
    if answering:
        found = [each if each.result == "ok" else warning(each.check, each.text, each.fix or "") for each in found]
        if len(answering) > 1:
            found.append(await _one_cluster(site, site.broker, answering))
        found.append(_identities(site))
    return found


async def _one_cluster(site: Site, options: RabbitOptions, answering: Sequence[BrokerAddress]) -> Finding:
    """Whether what is made at the first is known at each of the others; roles go to any of them."""
    check = "broker: cluster"
    first, *others = answering
    strangers = []
    context = _context(options)
    async with await _connected(first, context) as connection:
        channel = await connection.channel()
        queue = await within(PATIENCE, channel.declare_queue(exclusive=True, auto_delete=True))
        for address in others:
            async with await _connected(address, context) as other:
                try:
                    await within(PATIENCE, (await other.channel()).declare_queue(queue.name, passive=True))
                except aiormq.exceptions.ChannelLockedResource:
                    pass  # it is there, and another connection's
                except aiormq.exceptions.ChannelNotFoundEntity:
                    strangers.append(str(address))
    if strangers:
        text = f"what is made at {first} is not known at {', '.join(strangers)}: messages get lost between them"
        fix = f"rabbitmqctl cluster_status; join_cluster; or one cluster's nodes alone in {_OPTION} in {site.name}"
        return wrong(check, text, fix)
    return ok(check, f"{', '.join(str(address) for address in answering)} are nodes of one")


def _context(options: RabbitOptions) -> ssl.SSLContext | None:
    return options.tls.context() if options.tls is not None else None


async def _connected(address: BrokerAddress, context: ssl.SSLContext | None) -> aio_pika.abc.AbstractConnection:
    url = address.amqp_url(tls=context is not None, heartbeat=30)
    return await within(PATIENCE, aio_pika.connect(url, ssl_context=context, timeout=PATIENCE))


async def _one(site: Site, options: RabbitOptions, address: BrokerAddress) -> Finding:
    check = "broker"
    place = f"{address} as '{address.user}', virtual host '{address.vhost}'"
    try:
        context = _context(options)
    except OSError as error:
        return wrong(check, f"its files for TLS: {error}", f"[oslo_messaging_rabbit] ssl_... in {site.name}")
    try:
        connection = await _connected(address, context)
    except Exception as error:
        reason, fix = _not_connected(site, address, error)
        return wrong(check, f"{place}: {reason}", fix)
    try:
        await within(PATIENCE, _use(site, connection, options, address))
    except Exception as error:
        fix = (
            f"rabbitmqctl set_permissions -p '{address.vhost}' {address.user} '.*' '.*' '.*'"
            if not is_agents(site)
            else "the permissions of a host's user, as docs/deployment.md has them"
        )
        return wrong("broker: permissions", f"{place}: {_words(error)}", fix)
    finally:
        await asyncio.gather(within(PATIENCE, connection.close()), return_exceptions=True)
    return ok(check, f"{place}{' by TLS' if context is not None else ''}")


def _not_connected(site: Site, address: BrokerAddress, error: Exception) -> tuple[str, str]:
    words = _words(error)
    if "CERTIFICATE" in words.upper() or "SSL" in words:
        return words, f"[oslo_messaging_rabbit] ssl_ca_file in {site.name}, the broker's certificate, or its port"
    if isinstance(error, aiormq.exceptions.ProbableAuthenticationError | aiormq.exceptions.AuthenticationError):
        return "user or password is refused", (
            f"{_OPTION} in {site.name}, or: rabbitmqctl change_password {address.user} ..."
        )
    if "Connection.OpenOk" in words:
        # The library's words for the broker's closing where it should have opened the virtual host.
        return "there is no such virtual host, or the user may not enter it", (
            f"rabbitmqctl add_vhost '{address.vhost}' and set_permissions -p '{address.vhost}' {address.user} '.*' '.*'"
            f" '.*'; or the virtual host of {_OPTION} in {site.name}"
        )
    return words, f"start the broker, or correct host and port of {_OPTION} in {site.name}"


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE:g} s"
    parts: Sequence[object] = error.args or (type(error).__name__,)
    return " ".join(str(part) for part in parts if part).splitlines()[0] or type(error).__name__


async def _use(
    site: Site, connection: aio_pika.abc.AbstractConnection, options: RabbitOptions, address: BrokerAddress
) -> None:
    """What roles do: declare a queue, send to it as ourselves, take from it; it goes with the connection."""
    channel = await connection.channel(publisher_confirms=True)
    names = [None] if is_agents(site) else [None, f"{options.prefix}.doctor-{secrets.token_hex(4)}"]
    for name in names:
        queue = await channel.declare_queue(name, exclusive=True, auto_delete=True)
        message = aio_pika.Message(b"", user_id=address.user)
        await channel.default_exchange.publish(message, queue.name, timeout=PATIENCE)
        await queue.get(no_ack=True, timeout=PATIENCE)
    if is_agents(site):
        # As its agent does it, so that it is the same queue.
        await channel.declare_queue(f"{options.prefix}.agent.{site.host}", arguments=QUEUE_ARGUMENTS)


async def planes(site: Site, hosts: Sequence[str]) -> list[Finding]:
    """Whether somebody hears what the role `network` and the hosts' planes are told. `hosts`: 200 at most."""
    assert site.broker is not None
    options, check = site.broker, "networking: planes"
    names = ["network", *(f"plane.{host}" for host in hosts[:MOST])]
    heard: dict[str, bool] = {}
    context = _context(options)
    for address in options.brokers:
        try:
            connection = await _connected(address, context)
        except Exception:
            continue  # said already; another one may answer
        try:
            heard = {name: await _is_heard(connection, f"{options.prefix}.{name}") for name in names}
        finally:
            await asyncio.gather(within(PATIENCE, connection.close()), return_exceptions=True)
        break
    if not heard:
        return []
    deaf = [name.removeprefix("plane.") for name in names[1:] if not heard[name]]
    if not heard["network"]:
        return [wrong(check, "no role 'network' listens: no host gets a plan", "start kilonova-network")]
    if deaf:
        text = f"no plane listens on {', '.join(deaf[:10])}" + (" and more" if len(deaf) > 10 else "")
        return [warning(check, text, "start kilonova-plane there")]
    return [ok(check, f"one on each of {len(names) - 1} hosts, and the role 'network'")]


async def _is_heard(connection: aio_pika.abc.AbstractConnection, queue: str) -> bool:
    channel = await connection.channel()
    try:
        declared = await within(PATIENCE, channel.declare_queue(queue, passive=True))
    except aiormq.exceptions.ChannelNotFoundEntity:
        return False
    await channel.close()
    return bool(declared.declaration_result.consumer_count)


def _identities(site: Site) -> Finding:
    check = "broker: identities"
    if not site.shared_user:
        return ok(check, "each host has a user of its own (host_identity = required)")
    return warning(
        check,
        "all hosts share one user: whoever has one host's nova.conf can speak for every host",
        f"a user {AGENT}.HOST for each, then host_identity = required everywhere (docs/deployment.md)",
    )
