#!/usr/bin/env bash
# Sees to the C compilers that the tests of the C networks use, installing Debian's or Ubuntu's where that needs no
# password. Those that are missing afterwards are named by the tests, which skip, or fail where CI is set.
set -euo pipefail

packages=()
command -v gcc >/dev/null || packages+=(gcc libc6-dev)
command -v clang >/dev/null || packages+=(clang)
sanitizers() { ls "$(clang -print-runtime-dir)"/libclang_rt.asan* >/dev/null 2>&1; } # Debian's clang comes without
sanitizers || packages+=(libclang-rt-dev)
if [ ${#packages[@]} -gt 0 ]; then "$(dirname "$0")/debian.sh" "${packages[@]}"; fi
