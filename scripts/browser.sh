#!/usr/bin/env bash
# Prints the path of a Chromium or Chrome for the tests that look at the site, installing Debian's where that needs no
# password. Prints nothing where there is none: those tests then say so and skip.
set -euo pipefail

find_browser() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        # Ubuntu's chromium-browser is a snap launcher, which does not work headless in a container.
        if command -v "$name" >/dev/null && [ ! -e "/snap/bin/$name" ]; then command -v "$name"; return; fi
    done
    return 1
}

if ! find_browser; then
    if [ "$(id -u)" = 0 ]; then root=(); elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then root=(sudo -n); else exit 0; fi
    if command -v apt-get >/dev/null && grep -qi '^ID=debian' /etc/os-release; then
        echo "Installing chromium for the site tests" >&2
        "${root[@]}" apt-get update -qq >&2 || true
        "${root[@]}" apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 || true
    fi
    find_browser || true
fi
