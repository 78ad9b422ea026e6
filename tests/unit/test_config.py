"""Configuration files with the names operators know."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova import config
from kilonova.cli import check
from kilonova.config_options import GROUPS
from kilonova.errors import Invalid
from kilonova.service import deployment, foreign
from kilonova.service.options import ACCOUNTS

SOURCES = Path(config.__file__).parent


def write(tmp_path: Path, text: str) -> list[Path]:
    path = tmp_path / "nova.conf"
    path.write_text(text)
    return [path]


def test_sections_may_repeat_and_my_ip_is_filled_in(tmp_path: Path) -> None:
    text = (
        "[DEFAULT]\nmy_ip = 192.0.2.7\n[libvirt]\nvirt_type = qemu\n"
        "[DEFAULT]\nhost = compute01\n[vnc]\nvncserver_listen = $my_ip\n"
    )
    conf = config.load(write(tmp_path, text))
    assert (conf.host, conf.vnc.server_listen, conf.libvirt.virt_type) == ("compute01", "192.0.2.7", "qemu")


def test_settings_follow_the_file(tmp_path: Path) -> None:
    conf = config.load(write(tmp_path, "[quota]\ninstances = 3\n[scheduler]\nmax_attempts = 5\n"))
    settings = config.compute_settings(conf, deployment_id="d")
    assert (settings.quota.instances, settings.quota.cores, settings.max_attempts) == (3, 20, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[DEFAULT]\nmy_pi = 192.0.2.7\n", "unknown option 'my_pi'.*Did you mean 'my_ip'"),
        ("[libvrt]\nvirt_type = qemu\n", r"unknown section \[libvrt\].*Did you mean 'libvirt'"),
        ("[libvirt]\nvirt_type = xen\n", r"'virt_type' in section \[libvirt\].*auto, kvm, qemu"),
        ("[DEFAULT]\nreport_interval = soon\n", "report_interval"),
        ("[scheduler]\nmax_attempts = 0\n", "max_attempts"),
        ("no section\n", "nova.conf"),
    ],
)
def test_what_cannot_be_honoured_stops_the_start_and_names_the_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        config.load(write(tmp_path, text))
    assert "Location" not in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"absent\.conf does not exist"):
        config.load([tmp_path / "absent.conf"])


def test_every_registered_option_is_read_somewhere() -> None:
    code = "\n".join(path.read_text() for path in SOURCES.rglob("*.py"))
    quota = re.search(r"conf\.quota\[name\]", code)
    assert quota
    account = inspect.getsource(deployment.account)
    for group, registered in GROUPS.items():
        for option in registered:
            if group == "quota":
                continue
            place = f"conf.{option.dest}" if group == "DEFAULT" else f"conf.{group}.{option.dest}"
            read = re.search(re.escape(place) + r"\b", code)
            if group in ACCOUNTS:
                read = read or re.search(rf"section\.{option.dest}\b", account)
            assert read, f"nobody reads [{group}] {option.name}"


def test_no_option_is_both_read_and_called_without_effect() -> None:
    known = {(group, option.name) for group, registered in GROUPS.items() for option in registered}
    others = {
        (section, name) for table in (foreign.FIXED, foreign.HARMLESS) for section in table for name in table[section]
    }
    assert not known & others
    assert not {section for section in foreign.WITHOUT_EFFECT if section in GROUPS}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[DEFAULT]\nauth_strategy = noauth2\n",
            "auth_strategy = noauth2 is not honoured: Identity is always",
        ),
        ("[DEFAULT]\nuse_neutron = False\n", "use_neutron = False is not honoured"),
        ("[DEFAULT]\nfirewall_driver = nova.virt.firewall.IptablesFirewallDriver\n", "security groups are Neutron's"),
        ("[key_manager]\nbackend = vault\n", "the key manager is Barbican"),
        ("[libvirt]\nimages_type = rbd\n", "images_type = rbd is not honoured: disks are qcow2 files"),
        ("[keystone_authtoken]\nservice_token_roles_required = False\n", "service_token_roles_required = False"),
        ("[spice]\nenabled = true\n", "consoles are VNC and serial"),
        ("[oslo_policy]\nenforce_scope = false\n", "write other rules into policy_file"),
    ],
)
def test_what_promises_more_than_is_kept_stops_the_start_with_what_replaces_it(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(Invalid, match=said):
        config.load(write(tmp_path, text))


def test_options_without_effect_are_named_and_harm_nothing(tmp_path: Path) -> None:
    text = "[placement]\nauth_url = http://x\n[DEFAULT]\nauth_strategy = keystone\nrpc_response_timeout = 60\n"
    files = write(tmp_path, text)
    config.load(files)
    assert [(finding.section, finding.name, finding.stops) for finding in config.review(files[0])] == [
        ("placement", "auth_url", False),
        ("DEFAULT", "auth_strategy", False),
        ("DEFAULT", "rpc_response_timeout", False),
    ]


def test_old_names_are_told_and_honoured_and_nothing_is_written_beside(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = "[vnc]\nvncserver_listen = 192.0.2.7\n[DEFAULT]\nlock_path = /x\n[keystone_authtoken]\nauth_uri = http://k\n"
    (file,) = write(tmp_path, text)
    assert config.load([file]).vnc.server_listen == "192.0.2.7"
    findings = config.review(file)
    assert [(each.text, each.old, each.stops) for each in findings] == [
        ("[vnc] vncserver_listen: an old name of [vnc] server_listen", True, False),
        ("[DEFAULT] lock_path: an old name of [oslo_concurrency] lock_path", True, False),
        ("[keystone_authtoken] auth_uri: an old name of [keystone_authtoken] www_authenticate_uri", True, False),
    ]
    result = CliRunner().invoke(check.app, ["--config-file", str(file)])
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.output.splitlines()] == ["old", "old", "old", "ok"]
    assert capfd.readouterr().err == ""


def test_the_check_reports_everything_at_once_and_says_by_its_exit_code_whether_a_role_would_start(
    tmp_path: Path,
) -> None:
    bad = write(
        tmp_path, "[DEFAULT]\nmy_pi = 192.0.2.7\n[libvirt]\nimages_type = rbd\n[api_database]\nconnection = x\n"
    )
    result = CliRunner().invoke(check.app, ["--config-file", str(bad[0])])
    assert result.exit_code == 1
    assert [line.split(":")[0] for line in result.output.splitlines()] == ["error", "error", "ignored"]
    assert "Did you mean 'my_ip'?" in result.output
    mistaken = write(
        tmp_path,
        "[DEFAULT]\nenabled_apis = ec2\nssl_only = true\n[database]\nconnection = nowhere\n"
        "[keystone_authtoken]\nusername = nova\n",
    )
    result = CliRunner().invoke(check.app, ["--config-file", str(mistaken[0])])
    assert result.exit_code == 1
    said = result.output.splitlines()
    assert [line.split(":")[0] for line in said] == ["error"] * 4
    for part in ("enabled_apis", "ssl_only", "[database] connection", "[keystone_authtoken] auth_url, password"):
        assert part in result.output
    good = write(tmp_path, "[DEFAULT]\nmy_ip = 192.0.2.7\n")
    result = CliRunner().invoke(check.app, ["--config-file", str(good[0])])
    assert (result.exit_code, result.output) == (0, "ok\n")


@pytest.mark.parametrize(
    "text",
    [
        "[quota]\ninstances = 3\ninjected_file_path_length = 9\nrecheck_quota = false\n",
        "[DEFAULT]\nquota_instances = 3\nquota_injected_file_path_length = 9\nquota_floating_ips = 2\n",
    ],
)
def test_quotas_by_the_names_that_operators_know(tmp_path: Path, text: str) -> None:
    quota = config.compute_settings(config.load(write(tmp_path, text))).quota
    assert (quota.instances, quota.injected_file_path_bytes, quota.cores) == (3, 9, 20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[filter_scheduler]\nenabled_filters = NoSuchFilter\n", "'NoSuchFilter' is not known"),
        ("[metrics]\nweight_setting = cpu.frequency\n", "'cpu.frequency' is no NAME=RATIO"),
        ("[compute]\ncpu_dedicated_set = 0-x\n", "cpu_dedicated_set = 0-x"),
        ("[DEFAULT]\nreserved_huge_pages = node:0\n", "reserved_huge_pages"),
        ("[pci]\nalias = {\n", "[pci] alias"),
        ("[pci]\ndevice_spec = []x\n", "[pci] device_spec"),
        ("[libvirt]\nhw_machine_type = q35\n", "'q35': x86_64=q35 is accepted"),
        ("[DEFAULT]\ncompute_driver = ironic\n", "compute_driver = ironic"),
        ("[DEFAULT]\ncompute_driver = sim\n[sim]\ndurations = running:soon\n", "[sim] durations"),
        ("[DEFAULT]\ncompute_driver = sim\n[sim]\nnuma_cells = 65\n", "[sim] numa_cells = 65"),
        ("[oslo_policy]\npolicy_file = /nowhere/policy.yaml\n", "/nowhere/policy.yaml does not exist"),
        ("[api]\nvendordata_providers = X\n", "vendordata_providers"),
    ],
)
def test_the_check_finds_values_that_would_stop_a_role(tmp_path: Path, text: str, said: str) -> None:
    result = CliRunner().invoke(check.app, ["--config-file", str(write(tmp_path, text)[0])])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith("error: Configuration: ")
    assert said in line
