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
    # Ubuntu's package is the snap again.
    if grep -qi '^ID=debian' /etc/os-release 2>/dev/null; then "$(dirname "$0")/debian.sh" chromium; fi
    find_browser || true
fi
