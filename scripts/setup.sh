#!/usr/bin/env bash
# Prepares this checkout: Debian packages (as root), .venv, and .services/ with Keystone, Glance and Neutron.
#   scripts/setup.sh [--tests | --cluster]
#     --tests: also what only the tests need (MariaDB, PostgreSQL, RabbitMQ, Chromium, mmdebstrap; nothing is started)
#     --cluster: also what the long tests need (Galera, HAProxy, the key manager)
# A second run finds everything in place and takes well under a second, without a network.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE

# The guest image is put together by qemu-utils and e2fsprogs; libvirt-dev, gcc and python3-dev build libvirt's binding.
runtime=(libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils e2fsprogs)
network=(iproute2 nftables dnsmasq-base radvd openssh-client)
build=(libvirt-dev pkg-config gcc python3-dev python3-venv)
tests=(mariadb-server postgresql-15 rabbitmq-server chromium mmdebstrap)
long_tests=(galera-4 rsync lsof haproxy)
# What the console pages are made around; unpacked here instead of installed, so that nobody need be root.
pages=(novnc node-xterm)

log=$(mktemp)
trap 'rm -f "$log" "$log".*' EXIT
fail() { echo "setup: $1" >&2; exit 1; }
now() { date +%s.%N; }
took() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.1f s", to - from }'; }

# Runs a command quietly; shows what it said only when it fails.
quietly() {
    local out="$log.$BASHPID"
    "$@" >"$out" 2>&1 </dev/null || { cat "$out" >&2; return 1; }
}

apt_packages() {
    local wanted=("${runtime[@]}" "${network[@]}" "${build[@]}") missing=() package began
    [[ ${1:-} =~ ^--(tests|cluster)$ ]] && wanted+=("${tests[@]}")
    [ "${1:-}" = --cluster ] && wanted+=("${long_tests[@]}")
    command -v dpkg-query >/dev/null || { echo "setup: not a Debian system: QEMU and libvirt are left to you"; return 0; }
    local installed
    installed=" $(dpkg-query -W -f '${db:Status-Abbrev}${Package} ' 2>/dev/null) "
    for package in "${wanted[@]}"; do
        [[ $installed == *" ii $package "* ]] || missing+=("$package")
    done
    # The guest image is made from packages too, which apt has to know.
    local lists=(/var/lib/apt/lists/*_Packages*)
    [ ${#missing[@]} -eq 0 ] && [ -e "${lists[0]}" ] && return 0
    if [ "$(id -u)" -ne 0 ]; then
        [ ${#missing[@]} -eq 0 ] || echo "setup: not root: without ${missing[*]} ('kilonova up' simulates what it has not)"
        return 0
    fi
    began=$(now)
    # Packages start their daemons when they are installed; this keeps them from it.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
        # shellcheck disable=SC2064
        trap "rm -f $policy '$log' '$log'.*" EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    local options=(-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    quietly apt-get "${options[@]}" update || fail "apt-get update failed (see above)"
    if [ ${#missing[@]} -gt 0 ]; then
        quietly apt-get "${options[@]}" install --no-install-recommends --no-remove "${missing[@]}" ||
            fail "apt-get install failed (see above)"
    fi
    echo "setup: Debian packages, ${#missing[@]} installed ($(took "$began"))"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer with venv and ensurepip: apt-get install python3 python3-venv (or set PYTHON=...)"
}

# stamp_of FILE...: names the content that a virtual environment was made from.
stamp_of() { cat "$@" | sha256sum | cut -d' ' -f1; }

# The constraints files are complete, so nothing has to be resolved; compiling what is never imported is left out.
pip_install=(-m pip --disable-pip-version-check install -q --no-deps --no-compile)

service() { # NAME
    local name=$1 began where=.services/$1
    local stamp
    stamp=$(stamp_of "constraints/$name.txt")
    [ "$(cat "$where/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    began=$(now)
    rm -rf "$where"
    mkdir -p .services
    quietly "$python" -m venv --without-pip "$where" || fail "$name: no virtual environment (see above)"
    # Our pip fills it: a pip of its own would take longer to install than some of the services' parts.
    quietly .venv/bin/python -m pip --python "$where/bin/python" "${pip_install[@]:2}" -r "constraints/$name.txt" ||
        fail "$name: pip failed (see above)"
    echo "$stamp" >"$where/stamp"
    echo "setup: $name ($(took "$began"))"
}

own_environment() {
    local began stamp requirements=$log.requirements
    if pkg-config --exists libvirt 2>/dev/null; then
        cp constraints/kilonova.txt "$requirements"
    else
        echo "setup: without libvirt's binding (libvirt-dev is not installed): 'kilonova up' uses the simulated hypervisor"
        grep -v '^libvirt-python==' constraints/kilonova.txt >"$requirements"
    fi
    # Only what is installed counts, not the tools' settings below it.
    sed '/^\[tool\./,$d' pyproject.toml >"$requirements.project"
    stamp=$(stamp_of "$requirements" "$requirements.project")
    [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && return 0
    began=$(now)
    # What builds libvirt's binding and this package is pinned like the rest, so it goes first.
    grep '^setuptools==' "$requirements" >"$requirements.build"
    quietly .venv/bin/python "${pip_install[@]}" -r "$requirements.build" || fail "pip failed (see above)"
    quietly .venv/bin/python "${pip_install[@]}" --no-build-isolation -r "$requirements" || fail "pip failed (see above)"
    quietly .venv/bin/python "${pip_install[@]}" --no-build-isolation -e . || fail "pip failed (see above)"
    quietly .venv/bin/python -m pip check || fail "constraints/kilonova.txt misses something (see above): make lock"
    # Clients and tests start these dozens of times; some of what packages bring along is no Python 3 and stays as it is.
    .venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
    echo "$stamp" >.venv/stamp
    echo "setup: .venv ($(took "$began"))"
}

# Neutron loads our driver, which stands in this checkout; its entry points are all that is installed there.
network_driver() {
    local stamp
    stamp=$(sed '/^\[tool\./,$d' pyproject.toml | sha256sum)
    [ "$(cat .services/neutron/driver 2>/dev/null)" = "$stamp" ] && return 0
    quietly .venv/bin/python -m pip --python .services/neutron/bin/python "${pip_install[@]:2}" --no-build-isolation -e . ||
        fail "neutron: our driver cannot be installed (see above)"
    echo "$stamp" >.services/neutron/driver
}

warm() {
    local began stamp
    stamp=$(stamp_of .services/{keystone,glance,neutron}/stamp src/kilonova/allinone/inside.py)
    [ "$(cat .services/warm 2>/dev/null)" = "$stamp" ] && return 0
    began=$(now)
    quietly .venv/bin/python -m kilonova.allinone.warm || fail "the services cannot be built (see above)"
    echo "$stamp" >.services/warm
    echo "setup: services built once ($(took "$began"))"
}

console_pages() {
    local began where=.services/console archive stamp
    stamp="${pages[*]} $(stamp_of src/kilonova/console/bundle.py)"
    [ "$(cat "$where/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    if ! command -v apt-get >/dev/null; then
        echo "setup: not a Debian system: console pages need noVNC (docs/console.md)"
        return 0
    fi
    began=$(now)
    rm -rf "$where.new"
    mkdir -p "$where.new/packages"
    # Without it the cloud works but for the pages, which say what is missing.
    if ! (cd "$where.new/packages" && quietly apt-get -q -o Acquire::Retries=3 download "${pages[@]}"); then
        echo "setup: no console pages: apt-get download ${pages[*]} failed (see above); 'apt-get update' as root may help"
        return 0
    fi
    for archive in "$where.new"/packages/*.deb; do
        quietly dpkg-deb -x "$archive" "$where.new" || fail "console pages: $archive cannot be unpacked (see above)"
    done
    mkdir "$where.new/xterm"
    quietly "$python" src/kilonova/console/bundle.py "$where.new/usr/share/nodejs/xterm/lib/public/Terminal.js" Terminal \
        "$where.new/xterm/xterm.js" || fail "console pages: xterm.js cannot be put together (see above)"
    cp "$where.new/usr/share/nodejs/xterm/lib/xterm.css" "$where.new/xterm/"
    rm -rf "$where.new/packages" "$where.new/usr/share/nodejs"
    echo "$stamp" >"$where.new/stamp"
    rm -rf "$where"
    mv "$where.new" "$where"
    echo "setup: console pages ($(took "$began"))"
}

# One at a time in one checkout.
exec 9>.setup.lock
flock 9

start_services() {
    [ -x .venv/bin/pip ] || quietly "$python" -m venv .venv || fail "no virtual environment (see above)"
    { service keystone && service glance && service neutron; } &
    services=$!
}

python=""
if command -v python3 >/dev/null; then python=$(find_python 2>/dev/null) || python=""; fi
if [ -n "$python" ]; then
    # The services need nothing from apt, so they go along with it.
    start_services
    apt_packages "${1:-}"
else
    apt_packages "${1:-}"
    python=$(find_python)
    start_services
fi
console_pages
own_environment
wait $services
network_driver
warm
[ "${1:-}" != --cluster ] || service barbican
