"""What the guide finds when it begins: MariaDB, RabbitMQ, memcached, Identity, Image and Networking on two machines.

Debian's packages, with the files that their own chapters of the guide print. No init system runs here, so each
service is started as its unit file would.
"""

from __future__ import annotations

from tests.guide.machine import Machine

PASSWORD = "Password123$"
PACKAGES = (
    "mariadb-server", "rabbitmq-server", "memcached", "keystone", "glance-api", "neutron-server",
    "neutron-linuxbridge-agent", "neutron-dhcp-agent", "neutron-l3-agent", "neutron-metadata-agent", "python3-pymysql",
    "sysfsutils", "iputils-ping", "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils",
    "openssh-client", "curl", "sudo",
)  # fmt: skip
SECRET = "metadata-secret-of-the-guide"

_UWSGI = (
    "uwsgi_python3 --master --die-on-term --lazy-apps --enable-threads --buffer-size 65535 --rem-header Content-Length "
    "--add-header 'Connection: close' --processes 1 --threads 4"
)


class Base:
    def __init__(self, controller: Machine, compute: Machine, openstack: str) -> None:
        """`openstack`: the path of the ordinary client."""
        self.controller = controller
        self.compute = compute
        self.client = openstack

    def start(self) -> None:
        self._database()
        self._broker()
        self._identity()
        self._image()
        self._networking()

    def openstack(self, words: str, *, timeout: float = 120, check: bool = True) -> str:
        """What the ordinary client says to the administrator on the controller."""
        script = f". /root/admin-openrc.sh; {self.client} {words}"
        return self.controller.run(script, timeout=timeout, check=check)

    def _database(self) -> None:
        it = self.controller
        it.run("install -d -o mysql -g mysql /run/mysqld")
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
        it.spawn("memcached -u memcache -l 127.0.0.1", "/var/log/memcached.log")
        it.until("rabbitmqctl await_startup --timeout 60", 120, "cat /var/log/rabbitmq.out /var/log/rabbitmq/*")
        it.run(f"rabbitmqctl add_user openstack '{PASSWORD}'")
        it.run('rabbitmqctl set_permissions openstack ".*" ".*" ".*"')

    def _identity(self) -> None:
        it = self.controller
        it.write(
            "/etc/keystone/keystone.conf",
            """
[DEFAULT]
log_dir = /var/log/keystone
[database]
connection = mysql+pymysql://keystone:Password123$@controller01/keystone
[token]
provider = fernet
[identity]
password_hash_rounds = 4
[cache]
enabled = true
backend = dogpile.cache.memcached
memcache_servers = 127.0.0.1:11211
[fernet_tokens]
key_repository = /etc/keystone/fernet-keys/
[credential]
key_repository = /etc/keystone/credential-keys/
""",
            owner="keystone",
            mode="640",
        )
        it.run(
            "set -e; keystone-manage db_sync; "
            "keystone-manage fernet_setup --keystone-user keystone --keystone-group keystone; "
            "keystone-manage credential_setup --keystone-user keystone --keystone-group keystone; "
            f"keystone-manage bootstrap --bootstrap-password '{PASSWORD}' --bootstrap-region-id RegionOne "
            "--bootstrap-admin-url http://controller01:35357/v3/ --bootstrap-internal-url http://controller01:5000/v3/ "
            "--bootstrap-public-url http://controller01:5000/v3/",
            timeout=300,
        )
        it.run("chown -R keystone: /var/log/keystone /var/lib/keystone")
        it.spawn(
            f"{_UWSGI} --http-socket 0.0.0.0:5000 --http-socket 0.0.0.0:35357 "
            "--wsgi-file /usr/bin/keystone-wsgi-public",
            "/var/log/keystone/out.log",
            user="keystone",
        )
        it.write(
            "/root/admin-openrc.sh",
            "export OS_PROJECT_DOMAIN_ID=default OS_USER_DOMAIN_ID=default OS_PROJECT_NAME=admin OS_USERNAME=admin\n"
            f"export OS_PASSWORD='{PASSWORD}' OS_AUTH_URL=http://controller01:5000/v3 OS_IDENTITY_API_VERSION=3\n",
        )
        self.controller.until("bash -c 'exec 3<>/dev/tcp/controller01/35357'", 60, "tail -n 30 /var/log/keystone/*.log")
        self.openstack("project create --domain default --description 'Service Project' service")
        self.openstack("project create --domain default --description 'Demo Project' demo")
        self.openstack(f"user create --domain default --password '{PASSWORD}' demo")
        self.openstack("role add --project demo --user demo member")

    def _service(self, name: str, kind: str, port: int) -> None:
        self.openstack(f"user create --domain default --password '{PASSWORD}' {name}")
        self.openstack(f"role add --project service --user {name} admin")
        self.openstack(f"service create --name {name} {kind}")
        for interface in ("public", "internal", "admin"):
            self.openstack(f"endpoint create --region RegionOne {kind} {interface} http://controller01:{port}")

    def _image(self) -> None:
        it = self.controller
        self._service("glance", "image", 9292)
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
{_authtoken("glance")}
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
        it.until("bash -c 'exec 3<>/dev/tcp/controller01/9292'", 60, "tail -n 30 /var/log/glance/*.log")

    def _networking(self) -> None:
        it = self.controller
        self._service("neutron", "network", 9696)
        common = f"""
[DEFAULT]
core_plugin = ml2
service_plugins = router
allow_overlapping_ips = True
transport_url = rabbit://openstack:Password123$@controller01
auth_strategy = keystone
notify_nova_on_port_status_changes = True
notify_nova_on_port_data_changes = True
send_events_interval = 0
api_workers = 1
rpc_workers = 1
log_dir = /var/log/neutron
state_path = /var/lib/neutron
[oslo_concurrency]
lock_path = /var/lib/neutron/lock
[agent]
root_helper = sudo /usr/bin/neutron-rootwrap /etc/neutron/rootwrap.conf
[experimental]
linuxbridge = true
[database]
connection = mysql+pymysql://neutron:Password123$@controller01/neutron
{_authtoken("neutron")}
[nova]
auth_url = http://controller01:35357
auth_type = password
project_domain_id = default
user_domain_id = default
region_name = RegionOne
project_name = service
username = nova
password = {PASSWORD.replace("$", "$$")}
"""
        ml2 = """
[ml2]
type_drivers = flat,vxlan
tenant_network_types = vxlan
mechanism_drivers = linuxbridge,l2population
extension_drivers = port_security
[ml2_type_flat]
flat_networks = public
[ml2_type_vxlan]
vni_ranges = 1:1000
[securitygroup]
enable_ipset = True
"""
        for machine in (it, self.compute):
            machine.write("/etc/neutron/neutron.conf", common, owner="neutron", mode="640")
            machine.write("/etc/neutron/plugins/ml2/ml2_conf.ini", ml2)
            machine.write(
                "/etc/neutron/plugins/ml2/linuxbridge_agent.ini",
                f"""
[linux_bridge]
physical_interface_mappings = public:eth1
[vxlan]
enable_vxlan = True
local_ip = {machine.address}
l2_population = True
[securitygroup]
enable_security_group = True
firewall_driver = iptables
""",
            )
            machine.run("sysctl -q -w net.bridge.bridge-nf-call-iptables=1 net.ipv4.ip_forward=1", check=False)
        it.write("/etc/neutron/l3_agent.ini", "[DEFAULT]\ninterface_driver = linuxbridge\n")
        it.write(
            "/etc/neutron/dhcp_agent.ini",
            "[DEFAULT]\ninterface_driver = linuxbridge\nenable_isolated_metadata = True\n"
            "dnsmasq_config_file = /etc/neutron/dnsmasq-neutron.conf\n",
        )
        # A ping before an address is given away delays parallel boots beyond what clients wait for.
        it.write("/etc/neutron/dnsmasq-neutron.conf", "no-ping\n")
        it.write(
            "/etc/neutron/metadata_agent.ini",
            "[DEFAULT]\nnova_metadata_host = controller01\nmetadata_workers = 1\n"
            f"metadata_proxy_shared_secret = {SECRET}\n",
        )
        files = "--config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini"
        it.run(f"neutron-db-manage {files} upgrade head", user="neutron", timeout=600)
        it.spawn(f"neutron-server {files}", "/var/log/neutron/server.out", user="neutron")
        it.until("bash -c 'exec 3<>/dev/tcp/controller01/9696'", 120, "tail -n 40 /var/log/neutron/*")
        bridge = f"{files} --config-file /etc/neutron/plugins/ml2/linuxbridge_agent.ini"
        for machine in (it, self.compute):
            machine.spawn(f"neutron-linuxbridge-agent {bridge}", "/var/log/neutron/bridge.out")
        own = "--config-file /etc/neutron/neutron.conf --config-file /etc/neutron"
        it.spawn(f"neutron-l3-agent {own}/l3_agent.ini", "/var/log/neutron/l3.out")
        it.spawn(f"neutron-dhcp-agent {own}/dhcp_agent.ini", "/var/log/neutron/dhcp.out")
        it.spawn(f"neutron-metadata-agent {own}/metadata_agent.ini", "/var/log/neutron/metadata.out")
        agents = (
            f". /root/admin-openrc.sh; test $({self.client} network agent list -f value -c Alive | grep -c True) = 5"
        )
        it.until(
            agents, 180, f". /root/admin-openrc.sh; {self.client} network agent list; tail -n 20 /var/log/neutron/*.out"
        )


def _authtoken(user: str) -> str:
    return f"""
[keystone_authtoken]
www_authenticate_uri = http://controller01:5000
auth_url = http://controller01:35357
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = {user}
password = {PASSWORD.replace("$", "$$")}
memcached_servers = 127.0.0.1:11211
"""
