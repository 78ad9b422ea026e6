#!/usr/bin/env bash
# Writes constraints/*.txt anew from the newest releases that fit together (names and versions only).
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

lock() { # NAME REQUIREMENT...
    local name=$1
    shift
    "${PYTHON:-python3}" -m venv "$scratch/$name"
    "$scratch/$name/bin/python" -m pip --disable-pip-version-check install -q -U setuptools
    "$scratch/$name/bin/python" -m pip --disable-pip-version-check install -q "$@"
    "$scratch/$name/bin/python" -m pip freeze --all --exclude pip --exclude kilonova >"$scratch/$name.txt"
    grep -E '^[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+$' "$scratch/$name.txt" >"constraints/$name.txt"
    echo "constraints/$name.txt: $(wc -l <"constraints/$name.txt") packages"
}

lock kilonova '.[libvirt,client,test,check,otel,bench]'
lock keystone 'keystone==30.0.0' waitress
lock glance 'glance==33.0.0' waitress
lock neutron 'neutron==29.0.0' waitress
lock tempest 'tempest==47.0.0'
lock barbican 'barbican==23.0.0'
