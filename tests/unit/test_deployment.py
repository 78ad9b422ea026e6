"""What nova.conf says of a deployment, in the guide's words and in today's."""

from __future__ import annotations

from pathlib import Path

import pytest
from oslo_config import cfg

from kilonova import config
from kilonova.db.engine import async_url
from kilonova.errors import Invalid
from kilonova.service import deployment
from tests.support.guide import COMPUTE, CONTROLLER


def load(tmp_path: Path, text: str) -> cfg.ConfigOpts:
    path = tmp_path / "nova.conf"
    path.write_text(text)
    return config.load([path])


def test_the_guides_controller(tmp_path: Path) -> None:
    conf = load(tmp_path, CONTROLLER)
    url = async_url(deployment.database(conf).url)
    assert (url.username, url.password, url.host, url.database) == ("nova", "Password123$", "controller01", "nova")
    assert url.drivername == "mysql+asyncmy"
    (broker,) = deployment.broker(conf, "nova-api").brokers
    assert (broker.host, broker.port, broker.user, broker.password, broker.vhost) == (
        "controller01", 5672, "openstack", "Password123$", "/",
    )  # fmt: skip
    account = deployment.account(conf)
    assert (account.url, account.username, account.password, account.project) == (
        "http://controller01:35357", "nova", "Password123$", "service",
    )  # fmt: skip
    assert (account.user_domain, account.project_domain) == ({"id": "default"}, {"id": "default"})
    assert config.api_settings(conf, identity_url=account.url).www_authenticate_uri == "http://controller01:5000"
    assert deployment.image_endpoint(conf) == "http://controller01:9292"
    assert deployment.enabled_apis(conf) == ["osapi_compute", "metadata"]
    assert deployment.lock_path(conf) == Path("/var/lib/nova/tmp")
    assert conf.vnc.server_listen == "192.168.101.11"
    assert deployment.log_level(conf) == "INFO"
    assert not deployment.networking(conf)
    listeners = [
        f(conf) for f in (deployment.compute_listener, deployment.metadata_listener, deployment.console_listener)
    ]
    assert [(each.address, each.port) for each in listeners] == [("0.0.0.0", port) for port in (8774, 8775, 6080)]


def test_the_guides_compute_node(tmp_path: Path) -> None:
    conf = load(tmp_path, COMPUTE)
    assert conf.libvirt.virt_type == "qemu"
    assert (conf.vnc.server_listen, conf.vnc.server_proxyclient_address) == ("0.0.0.0", "192.168.101.21")
    assert deployment.image_endpoint(conf) == "http://controller01:9292"
    with pytest.raises(Invalid, match=r"\[database\] connection is missing"):
        deployment.database(conf)


@pytest.mark.parametrize(
    "text",
    [
        "auth_url = http://k:5000/v3\nauth_type = password\nusername = nova\npassword = a$!\nproject_name = service\n"
        "user_domain_name = Default\nproject_domain_name = Default\n",
        "auth_uri = http://k:5000\nauth_plugin = password\nuser-name = nova\npassword = a$!\ntenant_name = service\n"
        "default_domain_name = Default\n",
        "identity_uri = http://k:5000/v2.0/\nadmin_user = nova\nadmin_password = a$!\nadmin_tenant_name = service\n"
        "default_domain_name = Default\n",
    ],
)
def test_the_account_by_new_old_and_oldest_names(tmp_path: Path, text: str) -> None:
    account = deployment.account(load(tmp_path, f"[keystone_authtoken]\n{text}"))
    assert (account.url, account.username, account.password, account.project) == (
        "http://k:5000", "nova", "a$!", "service",
    )  # fmt: skip
    assert account.user_domain == account.project_domain == {"name": "Default"}
    assert "a$!" not in repr(account)


def test_networking_has_an_account_of_its_own_or_the_services(tmp_path: Path) -> None:
    own = "[keystone_authtoken]\nauth_url = http://k\nusername = nova\npassword = p\n"
    conf = load(tmp_path, own + "[neutron]\nurl = http://n:9696\n")
    assert deployment.networking(conf)
    assert conf.neutron.endpoint_override == "http://n:9696"
    assert deployment.network_account(conf).username == "nova"
    conf = load(tmp_path, own + "[neutron]\nauth_url = http://k\nusername = neutron\npassword = q\nregion_name = R\n")
    account = deployment.network_account(conf)
    assert (account.username, account.password, account.region) == ("neutron", "q", "R")


@pytest.mark.parametrize("password", ["Password123$", "a%b", "p#ss", "x;y,z", "semi colon", "ü€", "a=b[c]"])
def test_passwords_hold_what_they_hold(tmp_path: Path, password: str) -> None:
    text = f"[keystone_authtoken]\nauth_url = http://k\nusername = nova\npassword = {password}\n"
    text += f"[oslo_messaging_rabbit]\nrabbit_password = {password}\n"
    conf = load(tmp_path, text)
    assert deployment.account(conf).password == password
    assert deployment.broker(conf, "x").brokers[0].password == password


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("mysql+pymysql://nova:Password123$@controller01/nova?charset=utf8", "Password123$"),
        ("mysql+pymysql://nova:p%40ss%2Fw@controller01/nova", "p@ss/w"),
        ("postgresql://nova:a:b!@controller01/nova", "a:b!"),
    ],
)
def test_passwords_of_database_urls(tmp_path: Path, url: str, password: str) -> None:
    found = async_url(deployment.database(load(tmp_path, f"[database]\nconnection = {url}\n")).url)
    assert (found.password, found.host, found.database) == (password, "controller01", "nova")


def test_the_broker_by_url_or_by_parts(tmp_path: Path) -> None:
    both = "[DEFAULT]\ntransport_url = rabbit://u:p$@a:5673,u:p$@b/v\n[oslo_messaging_rabbit]\nrabbit_host = c\n"
    options = deployment.broker(load(tmp_path, both), "nova-api")
    assert [(str(b), b.password, b.vhost) for b in options.brokers] == [("a:5673", "p$", "v"), ("b:5672", "p$", "v")]
    several = (
        "[oslo_messaging_rabbit]\nrabbit_hosts = a:5673,b,[::1]:1\nrabbit_virtual_host = v\nrabbit_use_ssl = true\n"
    )
    options = deployment.broker(load(tmp_path, several), "nova-api")
    assert [(b.host, b.port) for b in options.brokers] == [("a", 5673), ("b", 5672), ("::1", 1)]
    assert options.tls is not None


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("host = g\n", "http://g:9292"),
        ("host = g\nport = 1\nprotocol = https\n", "https://g:1"),
        ("api_servers = https://g:9292/v2,http://h\n", "https://g:9292"),
        ("api_servers = g:9292\n", "http://g:9292"),
        ("endpoint_override = http://g/image\n", "http://g/image"),
        ("", None),
    ],
)
def test_image(tmp_path: Path, text: str, endpoint: str | None) -> None:
    assert deployment.image_endpoint(load(tmp_path, f"[glance]\n{text}")) == endpoint


@pytest.mark.parametrize(
    ("text", "read", "said"),
    [
        ("[DEFAULT]\nenabled_apis = ec2,osapi_compute\n", deployment.enabled_apis, "no EC2 API"),
        ("[DEFAULT]\nenabled_ssl_apis = osapi_compute\n", deployment.compute_listener, "needs .wsgi. ssl_cert_file"),
        ("[database]\nconnection = nova:secret@db\n", deployment.database, "is no URL"),
        ("[database]\nconnection = oracle://nova:secret@db/nova\n", deployment.database, "use sqlite, mysql"),
        ("[keystone_authtoken]\nusername = nova\n", deployment.account, "auth_url, password: missing"),
        (
            "[keystone_authtoken]\nauth_type = v3kerberos\nauth_url = http://k\nusername = n\npassword = secret\n",
            deployment.account,
            "only 'password' is known",
        ),
    ],
)
def test_what_is_wrong_is_named_without_secrets(tmp_path: Path, text: str, read: object, said: str) -> None:
    assert callable(read)
    with pytest.raises(Invalid, match=said) as caught:
        read(load(tmp_path, text))
    assert "secret" not in str(caught.value)


def test_a_dollar_before_a_letter_is_explained(tmp_path: Path) -> None:
    text = "[keystone_authtoken]\npassword = a$b\n"
    with pytest.raises(Invalid, match=r"\$b.*write \$\$"):
        load(tmp_path, text)
    assert load(tmp_path, text.replace("$", "$$")).keystone_authtoken.password == "a$b"
