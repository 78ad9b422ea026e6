"""What the guide finds when it begins: MariaDB, RabbitMQ, memcached, Identity, Image and Networking on two machines.

Debian's packages, with the files that their own chapters of the guide print. No init system runs here, so each
service is started as its unit file would.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.guide.machine import Machine
from tests.guide.networking import Networking
from tests.guide.words import authtoken
from tests.support.guide import PASSWORD

PACKAGES = (
    "mariadb-server", "rabbitmq-server", "memcached", "keystone", "glance-api", "neutron-server",
    "neutron-linuxbridge-agent", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-metadata-agent", "python3-pymysql",
    "sysfsutils", "iputils-ping", "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils",
    "openssh-client", "curl", "sudo",
)  # fmt: skip

_UWSGI = (
    "uwsgi_python3 --master --die-on-term --lazy-apps --enable-threads --buffer-size 65535 --rem-header Content-Length "
    "--add-header 'Connection: close' --processes 1 --threads 4"
)


class Base:
    def __init__(self, controller: Machine, compute: Machine) -> None:
        self.controller = controller
        self.networking = Networking(self, controller, compute)

    def parts(self) -> dict[str, Callable[[], None]]:
        """What starts each of the services, in the order in which they need each other."""
        return {
            "MariaDB": self._database,
            "RabbitMQ": self._broker,
            "Identity": self._identity,
            "Image": self._image,
            "Networking": self.networking.start,
        }

    def openstack(self, words: str, *, timeout: float = 120, check: bool = True) -> str:
        """What the ordinary client says to the administrator on the controller."""
        script = f". /root/admin-openrc.sh; openstack {words}"
        return self.controller.run(script, timeout=timeout, check=check)

    def _database(self) -> None:
        it = self.controller
        it.run("install -d -o mysql -g mysql /run/mysqld; rm -rf /var/lib/mysql")
        it.run("mariadb-install-db --user=mysql --skip-test-db --auth-root-authentication-method=normal")
        it.spawn("mariadbd --user=mysql --bind-address=0.0.0.0 --innodb-buffer-pool-size=128M", "/var/log/mariadb.log")
        it.until("mysqladmin -u root ping", otherwise="cat /var/log/mariadb.log")
        sql = f"ALTER USER root@localhost IDENTIFIED BY '{PASSWORD}';"
        for name in ("keystone", "glance", "neutron"):
            sql += f"CREATE DATABASE {name};"
            for host in ("localhost", "%"):
                sql += f"GRANT ALL PRIVILEGES ON {name}.* TO '{name}'@'{host}' IDENTIFIED BY '{PASSWORD}';"
        it.run("mysql -u root", stdin=sql)

    def _broker(self) -> None:
        it = self.controller
        it.spawn("rabbitmq-server", "/var/log/rabbitmq.out", user="rabbitmq")
        it.until("rabbitmqctl await_startup --timeout 60", 120, "cat /var/log/rabbitmq.out /var/log/rabbitmq/*")
        it.run(f"rabbitmqctl add_user openstack '{PASSWORD}'")
        it.run('rabbitmqctl set_permissions openstack ".*" ".*" ".*"')

    def _identity(self) -> None:
        self._serve_identity()
        self.controller.write(
            "/root/admin-openrc.sh",
            "export OS_PROJECT_DOMAIN_ID=default OS_USER_DOMAIN_ID=default OS_PROJECT_NAME=admin OS_USERNAME=admin\n"
            f"export OS_PASSWORD='{PASSWORD}' OS_AUTH_URL=http://controller01:5000/v3 OS_IDENTITY_API_VERSION=3\n",
        )
        self.controller.until(
            "bash -c 'exec 3<>/dev/tcp/controller01/35357'", 180, "tail -n 30 /var/log/keystone/*.log"
        )
        self.openstack("project create --domain default --description 'Service Project' service")

    def _serve_identity(self) -> None:
        it = self.controller
        it.spawn("memcached -u memcache -l 127.0.0.1", "/var/log/memcached.log")
        cache = "[cache]\nenabled = true\nbackend = dogpile.cache.memcached\nmemcache_servers = 127.0.0.1:11211\n"
        self._prepare_identity("keystone-manage", "mysql+pymysql://keystone:Password123$@controller01/keystone", cache)
        it.spawn(
            f"{_UWSGI} --http-socket 0.0.0.0:5000 --http-socket 0.0.0.0:35357 "
            "--wsgi-file /usr/bin/keystone-wsgi-public",
            "/var/log/keystone/out.log",
            user="keystone",
        )

    def _prepare_identity(self, manage: str, database: str, more: str = "") -> None:
        """Configuration, schema, keys and the administrator. `manage`: its command."""
        it = self.controller
        it.write(
            "/etc/keystone/keystone.conf",
            f"""
[DEFAULT]
log_dir = /var/log/keystone
[database]
connection = {database}
[token]
provider = fernet
[identity]
password_hash_rounds = 4
[fernet_tokens]
key_repository = /etc/keystone/fernet-keys/
[credential]
key_repository = /etc/keystone/credential-keys/
{more}""",
            owner="keystone",
            mode="640",
        )
        it.run(
            f"set -e; {manage} db_sync; "
            f"{manage} fernet_setup --keystone-user keystone --keystone-group keystone; "
            f"{manage} credential_setup --keystone-user keystone --keystone-group keystone; "
            f"{manage} bootstrap --bootstrap-password '{PASSWORD}' --bootstrap-region-id RegionOne "
            "--bootstrap-admin-url http://controller01:35357/v3/ --bootstrap-internal-url http://controller01:5000/v3/ "
            "--bootstrap-public-url http://controller01:5000/v3/",
            timeout=300,
        )
        it.run("chown -R keystone: /var/log/keystone /var/lib/keystone")

    def add_service(self, name: str, kind: str, port: int) -> None:
        self.openstack(f"user create --domain default --password '{PASSWORD}' {name}")
        self.openstack(f"role add --project service --user {name} admin")
        self.openstack(f"service create --name {name} {kind}")
        for interface in ("public", "internal", "admin"):
            self.openstack(f"endpoint create --region RegionOne {kind} {interface} http://controller01:{port}")

    def _image(self) -> None:
        it = self.controller
        self.add_service("glance", "image", 9292)
        it.write(
            "/etc/glance/glance-api.conf",
            f"""
[DEFAULT]
enabled_backends = fs:file
log_dir = /var/log/glance
worker_self_reference_url = http://controller01:9292
[database]
connection = mysql+pymysql://glance:Password123$@controller01/glance
[glance_store]
default_backend = fs
[fs]
filesystem_store_datadir = /var/lib/glance/images/
[os_glance_staging_store]
filesystem_store_datadir = /var/lib/glance/staging/
[os_glance_tasks_store]
filesystem_store_datadir = /var/lib/glance/tasks/
[paste_deploy]
flavor = keystone
{authtoken("glance")}
""",
            owner="glance",
            mode="640",
        )
        it.run("install -d -o glance -g glance /var/lib/glance/images /var/lib/glance/staging /var/lib/glance/tasks")
        it.run("glance-manage db_sync", user="glance", timeout=300)
        it.spawn(
            f"{_UWSGI} --http-socket 0.0.0.0:9292 --wsgi-file /usr/bin/glance-wsgi-api",
            "/var/log/glance/out.log",
            user="glance",
        )
        it.until("bash -c 'exec 3<>/dev/tcp/controller01/9292'", 180, "tail -n 30 /var/log/glance/*.log")
