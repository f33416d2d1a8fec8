#!/usr/bin/env bash
# Installs packages of Debian or Ubuntu where that needs no password; elsewhere it says nothing and does nothing.
# Called by the scripts that look for a tool which only some tests need:  scripts/debian.sh PACKAGE...
set -uo pipefail

if [ "$(id -u)" = 0 ]; then root=(); elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then root=(sudo -n); else exit 0; fi
command -v apt-get >/dev/null || exit 0
echo "Installing $* for the tests" >&2
"${root[@]}" apt-get update -qq >&2
"${root[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
exit 0
