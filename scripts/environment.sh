#!/usr/bin/env bash
# Makes .venv with the versions of requirements.lock and the package itself, editable. Called by `make`; safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { # runs a command as root where that needs no password; fails otherwise
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo -n "$@" 2>/dev/null; else return 1; fi
}

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() { # PYTHON, if given, decides; else the first one that the locked versions have wheels for
    local python
    for python in ${PYTHON:-python3 python3.11 python3.12 python3.13}; do
        if command -v "$python" >/dev/null && usable "$python"; then echo "$python"; return; fi
    done
    echo "Python 3.11, 3.12 or 3.13 is needed and was not found. Install one, or name it: make PYTHON=/path/to/python3.11" >&2
    return 1
}

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "Making .venv with $($python --version)"
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
        # Debian and Ubuntu ship Python without the venv module.
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "The venv module is missing; installing python$version-venv"
        { as_root apt-get update -qq && as_root apt-get install -y -qq "python$version-venv" >/dev/null; } || {
            echo "It could not be installed without a password. Run: sudo apt install python$version-venv" >&2
            exit 1
        }
        rm -rf .venv
        "$python" -m venv .venv
    fi
fi

# PyPI's torch for Linux on x86_64 brings several GB of CUDA; pytorch.org's CPU build of the same version does not.
# Where that index cannot be reached, pip takes whatever its own configuration offers.
index=()
if [ "$(uname -sm)" = "Linux x86_64" ] && .venv/bin/python - <<'PY' 2>/dev/null
import urllib.request
urllib.request.urlopen("https://download.pytorch.org/whl/cpu/torch/", timeout=5).close()
PY
then
    index=(--extra-index-url https://download.pytorch.org/whl/cpu)
fi

# pip says a line a package while it fetches, and nothing for a minute while it unpacks them: here a line for every 20
# packages and for each large file says how far it is. pip's warnings and errors are shown as they are.
progress() {
    local all seen=0 words
    all=$(grep -c '^[^#]' requirements.lock)
    while read -ra words; do
        case ${words[*]} in
            Collecting* | Processing* | "Requirement already"*)
                seen=$((seen + 1))
                if [ $((seen % 20)) = 0 ]; then echo "found $seen of $all packages"; fi ;;
            Downloading*[0-9][0-9].[0-9]" MB)" | Downloading*" GB)") echo "fetching ${words[1]##*/} ${words[*]:2}" ;;
            "Installing collected"*) echo "unpacking $((${#words[@]} - 3)) packages, which takes a minute or more" ;;
        esac
    done
}

pip=(.venv/bin/python -m pip --disable-pip-version-check)
PYTHONUNBUFFERED=1 "${pip[@]}" install --progress-bar off "${index[@]}" -r requirements.lock | progress
"${pip[@]}" install --quiet --no-deps --editable .
"${pip[@]}" check
