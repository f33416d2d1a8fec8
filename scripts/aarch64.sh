#!/usr/bin/env bash
# Prints the path of a root folder with an AArch64 Python and NumPy in it, for QEMU's user emulator: Debian's packages,
# fetched and unpacked into the cache without root, and the wheel of the NumPy version that .venv has. Prints nothing
# where they cannot be had: the test that runs the NumPy engine there then says so and skips.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v apt-get >/dev/null && command -v dpkg >/dev/null && command -v qemu-aarch64 >/dev/null || exit 0
numpy=$(.venv/bin/python -c 'import numpy; print(numpy.__version__)')
root=${EIGHTBIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/eightbit}/aarch64-numpy-$numpy

fetch() { # everything into a folder beside the final one, which appears whole or not at all
    mkdir -p "$(dirname "$root")"
    work=$(mktemp -d "$root.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work"/apt/{lists,cache/archives}/partial "$work/root"
    touch "$work/apt/status"
    local apt=(apt-get -qq -y -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=
        -o Debug::NoLocking=1 -o Dir::State::lists="$work/apt/lists" -o Dir::State::status="$work/apt/status"
        -o Dir::Cache="$work/apt/cache")
    "${apt[@]}" update
    "${apt[@]}" install --download-only --no-install-recommends python3-minimal libpython3-stdlib libstdc++6
    local package python
    for package in "$work"/apt/cache/archives/*.deb; do dpkg -x "$package" "$work/root"; done
    python=$(basename "$(readlink "$work/root/usr/bin/python3")") # python3.11
    .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --python-version "${python#python}" --dest "$work" "numpy==$numpy"
    .venv/bin/python -m zipfile -e "$work"/numpy-*.whl "$work/root/site"
    mv -T "$work/root" "$root"
}

if [ "${1-}" = fetch ]; then fetch; exit; fi
if [ ! -d "$root" ]; then # in a process of its own: inside `||` a failing step would not end it
    echo "Fetching an AArch64 Python and NumPy for the tests" >&2
    scripts/aarch64.sh fetch >&2 || exit 0
fi
echo "$root"
