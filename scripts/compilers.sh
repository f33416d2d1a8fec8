#!/usr/bin/env bash
# Sees to the C compilers, checkers and emulators with which the tests try the networks' C, on this machine and on others,
# installing Debian's or Ubuntu's where that needs no password. Those that are missing afterwards are named by the tests,
# which skip, or fail where CI is set.
set -euo pipefail

packages=()
need() { # program, packages that bring it
    command -v "$1" >/dev/null || packages+=("${@:2}")
}
need gcc gcc libc6-dev
need clang clang
need clang-tidy clang-tidy
need cppcheck cppcheck
sanitizers() { ls "$(clang -print-runtime-dir)"/libclang_rt.asan* >/dev/null 2>&1; } # Debian's clang comes without
sanitizers || packages+=(libclang-rt-dev)
if [ "$(uname -s)" = Linux ]; then
    need arm-none-eabi-gcc gcc-arm-none-eabi libnewlib-arm-none-eabi
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    need riscv64-linux-gnu-gcc gcc-riscv64-linux-gnu libc6-dev-riscv64-cross
    need qemu-system-arm qemu-system-arm
    need qemu-riscv64 qemu-user
fi
if [ ${#packages[@]} -gt 0 ]; then "$(dirname "$0")/debian.sh" "${packages[@]}"; fi
