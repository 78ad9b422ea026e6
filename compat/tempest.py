"""The reference's own test suite against `kilonova up`: `python -m compat.tempest [REGEX ...]`.

Installs tempest, brings up a cloud, writes tempest's configuration from what the cloud says of itself, runs what the
expressions name (the Networking API by default), unmodified, and fails for every failure that is not declared with
its reason in `tempest.toml`. `--write` keeps the results, which `make compat ARGS=--write` puts into
docs/compatibility.md.
"""

from __future__ import annotations

import argparse
import configparser
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openstack
import openstack.config

from compat.document import RESULTS

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".cache" / "tempest"
CONSTRAINTS = ROOT / "constraints" / "tempest.txt"
DECLARED = Path(__file__).with_name("tempest.toml")
DEFAULT = ("^tempest[.]api[.]network[.]",)
_LINE = re.compile(r"^\{\d+\} (?P<test>.+?)(?: \[[\d.]+s\])? \.\.\. (?P<end>ok|FAILED|SKIPPED)(?:: (?P<reason>.*))?$")


def prepare() -> Path:
    """The directory of tempest's programs; makes its environment when it is not there."""
    stamp = ENVIRONMENT / "constraints.txt"
    if not stamp.exists() or stamp.read_text() != CONSTRAINTS.read_text():
        print(f"installing tempest into {ENVIRONMENT.relative_to(ROOT)}", flush=True)
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        install = [str(ENVIRONMENT / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--no-deps", "-r", str(CONSTRAINTS)], check=True)
        stamp.write_text(CONSTRAINTS.read_text())
    return ENVIRONMENT / "bin"


@contextmanager
def cloud(directory: Path, hypervisor: str) -> Iterator[Path]:
    """A cloud of its own, at free ports, until the end of the block; its state directory."""
    kilonova = [sys.executable, "-m", "kilonova.cli"]
    where = ["--state-dir", str(directory)]
    offset = ["--port-offset", str(random.randrange(20000, 50000))]
    # Tests make more servers and networks than a project may have otherwise.
    configuration = directory.with_suffix(".conf")
    configuration.write_text("[quota]\ninstances = -1\ncores = -1\nram = -1\n")
    more = ["--hypervisor", hypervisor, "--config-file", str(configuration)]
    subprocess.run([*kilonova, "up", "--detach", *where, *offset, *more], check=True)
    try:
        yield directory
    finally:
        subprocess.run([*kilonova, "down", "--stop-guests", *where], check=True)


def configuration(state: Path, directory: Path) -> str:
    """tempest.conf of the cloud in `state`; makes the flavors and the image that servers' tests name."""
    config = openstack.config.OpenStackConfig(config_files=[str(state / "clouds.yaml")], load_envvars=False)
    region = config.get_one("kilonova")
    admin = openstack.connection.Connection(config=region)
    auth = region.config["auth"]
    image = admin.image.find_image("tempest") or admin.image.create_image(
        name="tempest", data=bytes(1 << 20), disk_format="raw", container_format="bare", visibility="public"
    )
    flavors = [
        admin.compute.find_flavor(name) or admin.compute.create_flavor(name=name, ram=ram, vcpus=1, disk=1)
        for name, ram in (("tempest", 128), ("tempest-alt", 192))
    ]
    public = admin.network.find_network("public", ignore_missing=False)
    extensions = {each.alias for each in admin.network.extensions()}
    if "standard-attr-tag" in extensions:
        extensions.add("tag")  # tempest knows it by its former name
    settings: dict[str, dict[str, Any]] = {
        "DEFAULT": {"log_file": directory / "tempest.log"},
        "auth": {
            "admin_username": auth["username"],
            "admin_password": auth["password"],
            "admin_project_name": auth["project_name"],
            "admin_domain_name": "Default",
            "tempest_roles": "member",
        },
        "identity": {"uri_v3": f"{auth['auth_url'].removesuffix('/v3')}/v3", "auth_version": "v3"},
        "service_available": {"cinder": False, "swift": False, "horizon": False, "neutron": True},
        "compute": {
            "image_ref": image.id, "image_ref_alt": image.id, "flavor_ref": flavors[0].id,
            "flavor_ref_alt": flavors[1].id, "max_microversion": "latest",
        },
        "network": {"public_network_id": public.id, "floating_network_name": public.name},
        "network-feature-enabled": {
            "api_extensions": ",".join(sorted(extensions)), "ipv6": True, "ipv6_subnet_attributes": True,
        },
        "validation": {"run_validation": False},
        "oslo_concurrency": {"lock_path": directory / "lock"},
    }  # fmt: skip
    found = configparser.RawConfigParser()
    found.read_dict({name: {key: str(value) for key, value in each.items()} for name, each in settings.items()})
    with (directory / "written").open("w+") as file:
        found.write(file)
        file.seek(0)
        return file.read()


def run(programs: Path, directory: Path, text: str, expressions: list[str], workers: int) -> dict[str, tuple[str, str]]:
    """What became of each test: ok, FAILED or SKIPPED, and why. Of a class that is skipped its name alone is told.

    Raises RuntimeError when none was run.
    """
    workspace = directory / "workspace"
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"PATH": f"{programs}:{environment['PATH']}", "HOME": str(directory)}
    subprocess.run([programs / "tempest", "init", workspace], check=True, env=environment, stdout=subprocess.DEVNULL)
    (workspace / "etc/tempest.conf").write_text(text)
    command = [programs / "tempest", "run", "--concurrency", str(workers), "--regex", "|".join(expressions)]
    found: dict[str, tuple[str, str]] = {}
    log = directory / "run.log"
    with (
        log.open("w") as kept,
        subprocess.Popen(command, cwd=workspace, env=environment, stdout=subprocess.PIPE, text=True) as running,
    ):
        assert running.stdout is not None
        for line in running.stdout:
            kept.write(line)
            match = _LINE.match(line.strip())
            if match is not None:
                kept.flush()
                found[match["test"]] = (match["end"], match["reason"] or "")
                if match["end"] == "FAILED":
                    print(line.strip(), flush=True)
    if not found:
        raise RuntimeError(f"tempest ran nothing; it said:\n{log.read_text()[-3000:]}")
    return found


def declared() -> dict[str, str]:
    """Reasons by a part of a test's name."""
    return dict(tomllib.loads(DECLARED.read_text())["failures"])


def reason_of(test: str, reasons: dict[str, str]) -> str | None:
    return next((reason for part, reason in reasons.items() if part in test), None)


def keep(found: dict[str, tuple[str, str]], expressions: list[str], hypervisor: str) -> None:
    """In tempest.json, under what was asked for."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    reasons = declared()
    version = re.search(r"^tempest==(.+)$", CONSTRAINTS.read_text(), re.MULTILINE)
    assert version is not None
    results["|".join(expressions)] = {
        "asked": " ".join(each.strip("^").replace("[.]", ".") + "*" for each in expressions),
        "version": version[1],
        "hypervisor": hypervisor,
        "tests": dict(sorted(Counter(end for end, _ in found.values()).items())),
        "failed": {
            test: reason_of(test, reasons) or "not explained"
            for test, (end, _) in sorted(found.items())
            if end == "FAILED"
        },
        "skipped": dict(sorted(Counter(reason for end, reason in found.values() if end == "SKIPPED").items())),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="compat.tempest", description=__doc__)
    parser.add_argument("regex", nargs="*", default=list(DEFAULT), help="tests to run (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="keep the results for docs/compatibility.md")
    parser.add_argument("--state-dir", type=Path, help="a cloud that is up already, instead of one of its own")
    parser.add_argument("--hypervisor", default="sim", choices=("sim", "libvirt"), help="of the cloud (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="tests at a time (%(default)s)")
    parser.add_argument("--keep", type=Path, help="where to leave tempest's logs")
    given = parser.parse_args()
    programs = prepare()
    with tempfile.TemporaryDirectory(prefix="kilonova-tempest-") as scratch:
        directory = (given.keep or Path(scratch)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        if given.state_dir is not None:
            text = configuration(given.state_dir.resolve(), directory)
            found = run(programs, directory, text, given.regex, given.workers)
        else:
            with cloud(directory / "cloud", given.hypervisor) as state:
                text = configuration(state, directory)
                found = run(programs, directory, text, given.regex, given.workers)
    if given.write:
        keep(found, given.regex, given.hypervisor)
    reasons = declared()
    failed = [test for test, (end, _) in found.items() if end == "FAILED"]
    unexplained = [test for test in failed if reason_of(test, reasons) is None]
    print(f"{dict(Counter(end for end, _ in found.values()))}; {len(unexplained)} failures not declared")
    raise SystemExit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
