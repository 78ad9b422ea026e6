"""Configuration files with the names operators know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kilonova import config
from kilonova.errors import Invalid

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
    for group, options in config.GROUPS.items():
        for option in options:
            if group == "quota":
                continue
            place = f"conf.{option.dest}" if group == "DEFAULT" else f"conf.{group}.{option.dest}"
            assert re.search(re.escape(place) + r"\b", code), f"nobody reads [{group}] {option.name}"
