#!/usr/bin/env bash
# Prints the path of QEMU's user emulator, with which the tests run this machine's Python as an older x86 processor,
# installing Debian's or Ubuntu's where that needs no password. Prints nothing where there is none: those tests then say
# so and skip. It emulates AVX2 since version 7.2, and runs a Python of x86-64 only.
set -euo pipefail

[ "$(uname -sm)" = "Linux x86_64" ] || exit 0

find_emulator() {
    local name
    for name in qemu-x86_64 qemu-x86_64-static; do
        if command -v "$name" >/dev/null && recent "$name"; then command -v "$name"; return; fi
    done
    return 1
}

recent() { # whether it is version 7.2 or later
    local version
    version=$("$1" --version | sed -nE '1s/.*version ([0-9]+\.[0-9]+).*/\1/p')
    [ "$(printf '%s\n' 7.2 "$version" | sort -V | head -1)" = 7.2 ]
}

if ! find_emulator; then
    "$(dirname "$0")/debian.sh" qemu-user
    find_emulator || true
fi
