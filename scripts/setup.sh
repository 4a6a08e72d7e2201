#!/usr/bin/env bash
# Installs what building and testing need on Debian (12 or newer) or Ubuntu.
#
#   scripts/setup.sh          what `make build` needs
#   scripts/setup.sh check    also what `make check` needs: cargo-deny
#   scripts/setup.sh test     also what `make test` needs: the real S3 clients
#   scripts/setup.sh bench    also what `make bench-disk` needs: fio and strace
#
# Where everything is there already it changes nothing and calls neither apt nor pip. A tool that is
# missing at the end is a failure, never a skipped test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode=${1:-build}
cache=${SHARDGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shardgate}
rust_needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
cargo_deny_version=0.20.2

build_packages=(g++ make libclang-dev ca-certificates)
bench_packages=(fio strace)
client_packages=(awscli s3cmd rclone curl php-cli php-curl php-xml php-mbstring python3 python3-venv strace
    e2fsprogs mount)

fail() {
    echo "setup.sh: $*" >&2
    exit 1
}

check_rust() {
    command -v cargo > /dev/null || fail "no cargo: install Rust $rust_needed or newer (https://rustup.rs)"
    local have
    have=$(rustc --version | cut -d ' ' -f 2)
    [ "$(printf '%s\n' "$rust_needed" "$have" | sort -V | head -n 1)" = "$rust_needed" ] ||
        fail "rustc is $have, and $rust_needed or newer is needed (https://rustup.rs; Debian's own may be older)"
}

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null)" = installed ]
}

install_packages() {
    local missing=() name
    for name in "$@"; do
        installed "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get > /dev/null || fail "no apt-get here; install these yourself: ${missing[*]}"
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo > /dev/null || fail "not root and no sudo; install these yourself: ${missing[*]}"
        root=(sudo)
    fi
    echo "setup.sh: installing ${missing[*]}" >&2
    "${root[@]}" apt-get update -q
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    for name in "${missing[@]}"; do
        installed "$name" || fail "$name is still missing"
    done
}

# The profile is for a tool that runs for a second: what counts is how long it takes to build.
install_cargo_deny() {
    local root=$cache/tools/cargo-deny-$cargo_deny_version
    [ ! -x "$root/bin/cargo-deny" ] || return 0
    echo "setup.sh: building cargo-deny $cargo_deny_version once, into $root (about 5 minutes on 2 cores)" >&2
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=false \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_TARGET_DIR="$cache/tools/build" \
        cargo install --quiet --locked --no-default-features --root "$root" \
        --version "$cargo_deny_version" cargo-deny
    rm -rf "$cache/tools/build"
}

# The PyPI clients live in a venv named after its pins: other pins make another one.
install_python_clients() {
    local pins=s3-compat-tests/clients/requirements.txt
    local venv=$cache/tools/python-$(sha256sum "$pins" | cut -c 1-12)
    if [ ! -e "$venv/complete" ]; then
        echo "setup.sh: installing aws (v1) and boto3 into $venv" >&2
        rm -rf "$venv"
        /usr/bin/python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$pins"
        "$venv/bin/python" -c 'import awscrt, boto3'
        touch "$venv/complete"
    fi
    ln -sfn "$venv" "$cache/tools/python"
}

# Same order as the test runner: vendor/ here, then SHARDGATE_PHP_SDK, then a folder beside the checkout.
install_php_sdk() {
    local here=s3-compat-tests/clients/php
    [ ! -e "$here/vendor/autoload.php" ] || return 0
    [ ! -e "${SHARDGATE_PHP_SDK:-../shared/php-sdk}/vendor/autoload.php" ] || return 0
    # Packages of PHP come as zip files.
    command -v composer > /dev/null || install_packages composer unzip
    echo "setup.sh: installing the AWS SDK for PHP into $here/vendor" >&2
    composer --working-dir="$here" install --no-interaction --no-progress
}

# Power losses, full and failing disks are tested on file systems that the tests mount.
check_mounts() {
    [ "$(id -u)" -eq 0 ] || fail "tests mount file systems of their own: run them as root, for example sudo env \"PATH=\$PATH\" \"HOME=\$HOME\" make test"
    [ -c /dev/fuse ] || fail "no /dev/fuse: tests mount file systems of their own"
    losetup -f > /dev/null || fail "no loop devices: tests mount file systems of their own"
}

case $mode in build | check | test | bench) ;; *) fail "usage: scripts/setup.sh [build|check|test|bench]" ;; esac
check_rust
install_packages "${build_packages[@]}"
case $mode in check | test) install_cargo_deny ;; bench) install_packages "${bench_packages[@]}" ;; esac
if [ "$mode" = test ]; then
    install_packages "${client_packages[@]}"
    check_mounts
    install_python_clients
    install_php_sdk
fi
