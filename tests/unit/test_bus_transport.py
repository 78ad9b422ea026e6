from __future__ import annotations

import pytest
import yarl

from kilonova.bus.transport import BrokerAddress, parse_transport_url
from kilonova.errors import Invalid


def one(url: str) -> BrokerAddress:
    [address], _ = parse_transport_url(url)
    return address


def test_the_guides_line_means_the_default_port_and_virtual_host() -> None:
    expected = BrokerAddress(host="controller01", port=5672, user="openstack", password="password", vhost="/")
    assert one("rabbit://openstack:password@controller01") == expected
    assert one("rabbit://openstack:password@controller01/") == expected
    assert one("rabbit://openstack:password@controller01:5672//") == expected


def test_passwords_keep_their_odd_characters() -> None:
    assert one("rabbit://o:p%40ss%2Fw%3Ard$1@h").password == "p@ss/w:rd$1"
    assert one("rabbit://o:a@b@h").password == "a@b"


def test_several_brokers_share_login_and_virtual_host_unless_they_say_otherwise() -> None:
    addresses, tls = parse_transport_url("rabbit://a:b@one:5673,two,c:d@[::1]:5674/nova")
    assert not tls
    assert addresses == [
        BrokerAddress(host="one", port=5673, user="a", password="b", vhost="nova"),
        BrokerAddress(host="two", port=5672, user="a", password="b", vhost="nova"),
        BrokerAddress(host="::1", port=5674, user="c", password="d", vhost="nova"),
    ]


def test_tls_by_option_by_scheme_and_by_argument() -> None:
    for url, tls in (("rabbit://a:b@h?ssl=1", False), ("amqps://a:b@h", False), ("rabbit://a:b@h", True)):
        [address], spoken = parse_transport_url(url, tls=tls)
        assert spoken
        assert address.port == 5671


@pytest.mark.parametrize("url", ["", "h:5672", "redis://a:hush@h", "rabbit://a:hush@", "rabbit://a:hush@h:port"])
def test_what_is_no_transport_url_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(Invalid, match="transport_url") as caught:
        parse_transport_url(url)
    assert "hush" not in caught.value.message


def test_the_url_for_the_library_says_the_same() -> None:
    address = BrokerAddress(host="h", port=5672, user="o/s", password="p@ss/w:rd", vhost="/")
    url = yarl.URL(address.amqp_url(tls=False, heartbeat=30))
    assert (url.user, url.password, url.host, url.path) == ("o/s", "p@ss/w:rd", "h", "//")
