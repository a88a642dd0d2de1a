# Sourced by the other scripts, and by you before plain cargo commands:   . scripts/env.sh
#
# Points librocksdb-sys at the prebuilt static library and bindgen at a libclang. Without this a
# plain `cargo build` still works wherever libclang is installed, but compiles RocksDB itself,
# which takes a quarter of an hour on two cores.
#
# Works in bash and zsh. Never fails: what is missing is left unset for scripts/setup.sh to install.

_meridian_root=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)
_meridian_cache=${MERIDIAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/meridian}

# rustup installs here; a fresh shell may not have it on its path.
case ":$PATH:" in
    *":${CARGO_HOME:-$HOME/.cargo}/bin:"*) ;;
    *) [ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH" ;;
esac

if _meridian_lib=$("$_meridian_root/scripts/build-rocksdb.sh" --path 2>/dev/null); then
    export ROCKSDB_LIB_DIR=$_meridian_lib ROCKSDB_STATIC=1
fi

# A libclang from PyPI (see setup.sh) lacks the compiler's own headers: gcc's do.
if [ -z "${LIBCLANG_PATH:-}" ] && [ -e "$_meridian_cache/libclang/.done" ]; then
    export LIBCLANG_PATH=$_meridian_cache/libclang
    if _meridian_gcc=$(cc -print-file-name=include 2>/dev/null) && [ -d "$_meridian_gcc" ]; then
        export BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:-} -isystem $_meridian_gcc"
    fi
fi
unset _meridian_root _meridian_cache _meridian_lib _meridian_gcc
