#!/usr/bin/env bash
# Installs what a build needs and the machine lacks; does nothing when all is there.
# Needed beforehand: Rust (rustup), a C and C++ compiler, make, and a network connection once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/env.sh

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

CACHE=${MERIDIAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/meridian}

command -v cargo >/dev/null || die "cargo is not on the path: install Rust from https://rustup.rs"
if ! command -v cc >/dev/null || ! command -v c++ >/dev/null; then
    die "no C or C++ compiler: install gcc and g++ (Debian: build-essential)"
fi

# bindgen reads RocksDB's C header through libclang. It searches the places below, among others;
# libclang-cpp is a different library, and is not enough.
find_libclang() {
    local dir
    for dir in "${LIBCLANG_PATH:-/nonexistent}" /usr/lib/llvm-*/lib /usr/lib64/llvm*/lib /usr/lib64 \
        /usr/lib /usr/local/lib "/usr/lib/$(uname -m)-linux-gnu" /opt/homebrew/opt/llvm/lib \
        /Library/Developer/CommandLineTools/usr/lib; do
        if compgen -G "$dir/libclang.so*" >/dev/null || compgen -G "$dir/libclang-[0-9]*.so*" >/dev/null \
            || [ -e "$dir/libclang.dylib" ]; then
            return 0
        fi
    done
    command -v llvm-config >/dev/null && compgen -G "$(llvm-config --libdir)/libclang.so*" >/dev/null
}

from_apt() {
    command -v apt-get >/dev/null || return 1
    local sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || return 1
        sudo="sudo -n"
    fi
    say "installing libclang-dev with apt-get"
    $sudo apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libclang-dev >&2
}

# The wheel holds one file, libclang.so; env.sh finds it in the cache folder.
from_pypi() {
    local python=
    for python in python3 python; do
        "$python" -m pip --version >/dev/null 2>&1 && break
        python=
    done
    [ -n "$python" ] || return 1
    say "fetching the libclang wheel from PyPI into $CACHE"
    mkdir -p "$CACHE"
    local tmp
    tmp=$(mktemp -d "$CACHE/.libclang.XXXXXX")
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$tmp/wheel" libclang >&2 || return 1
    mkdir "$tmp/lib"
    find "$tmp/wheel" -name 'libclang.*' -type f \( -name '*.so*' -o -name '*.dylib' \) -exec mv {} "$tmp/lib/" \;
    touch "$tmp/lib/.done"
    rm -rf "$CACHE/libclang"
    mv "$tmp/lib" "$CACHE/libclang"
    rm -rf "$tmp"
    . scripts/env.sh
}

if ! find_libclang; then
    from_apt || from_pypi || true
    find_libclang || die "libclang is missing and could not be installed from here.
       Install it with your package manager (Debian, Ubuntu: libclang-dev; Fedora: clang-devel;
       Arch: clang; macOS: xcode-select --install), or set LIBCLANG_PATH to its folder."
fi

scripts/build-rocksdb.sh >/dev/null \
    || say "going on without it: cargo will compile RocksDB, which takes a quarter of an hour or more"
