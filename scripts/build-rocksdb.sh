#!/usr/bin/env bash
# Compiles the RocksDB that librocksdb-sys bundles, once per version, into a static library in the
# user's cache folder, and prints the folder's path on stdout (progress goes to stderr).
# With --path it only looks: prints the folder if the library is there, and fails if it is not.
#
# Why not leave it to that crate's build script: it compiles 342 files one by one, each of which
# reads the same headers again, which takes a quarter of an hour or more on two cores. Here the
# same files are compiled as a few dozen merged units at -O1, which takes about three minutes, and
# every checkout, profile and target folder shares the result.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RECIPE=1            # raise it when a change to this script must rebuild the library
UNITS=26            # how many merged units the sources are spread over
OPT=-O1
CXX=${CXX:-c++}
JOBS=${JOBS:-$(nproc 2>/dev/null || echo 2)}

say() { printf 'rocksdb: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The folder of a locked dependency's sources: crate NAME at the version in Cargo.lock.
locked_version() {
    awk -v want="name = \"$1\"" '$0 == want { getline; gsub(/version = |"/, ""); print; exit }' Cargo.lock
}
crate_dir() {
    local version dir
    version=$(locked_version "$1")
    for dir in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$1-$version"; do
        if [ -d "$dir" ]; then echo "$dir"; return; fi
    done
    return 1
}

VERSION=$(locked_version librocksdb-sys)
[ -n "$VERSION" ] || die "Cargo.lock has no librocksdb-sys"

command -v "$CXX" >/dev/null || die "no C++ compiler: install g++ (or set CXX)"
command -v ar >/dev/null || die "no ar: install binutils"

# The flags mirror librocksdb-sys' build.rs with the features our Cargo.toml asks for (lz4, zstd).
FLAGS=(-std=c++20 "$OPT" -g0 -fPIC -w -include cstdint
    -DNDEBUG=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION
    -DROCKSDB_PLATFORM_POSIX -DROCKSDB_LIB_IO_POSIX -DLZ4=1 -DZSTD=1)
case "$(uname -s)" in
    Linux) FLAGS+=(-DOS_LINUX -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT
        -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT) ;;
    Darwin) FLAGS+=(-DOS_MACOSX) ;;
    *) die "no flags known for $(uname -s): use the bundled build (plain cargo build)" ;;
esac
case "$(uname -m)" in   # checksums in hardware
    x86_64) FLAGS+=(-msse4.2 -mpclmul) ;;
    aarch64) FLAGS+=(-march=armv8-a+crc+aes+crypto) ;;
esac

hash_of() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -c1-12; }
HASH=$({ echo "$RECIPE" "${FLAGS[@]}"; "$CXX" -dumpmachine; "$CXX" -dumpversion; } | hash_of)
CACHE=${MERIDIAN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/meridian}
OUT=$CACHE/rocksdb-${VERSION//+/_}-$HASH

if [ -f "$OUT/.done" ]; then echo "$OUT"; exit 0; fi
if [ "${1:-}" = --path ]; then exit 1; fi   # only asked where it is

if ! { crate_dir librocksdb-sys && crate_dir lz4-sys && crate_dir zstd-sys; } >/dev/null; then
    say "fetching the locked crates"
    cargo fetch --locked >&2
fi
SYS=$(crate_dir librocksdb-sys) || die "the sources of librocksdb-sys are not in cargo's registry"
LZ4=$(crate_dir lz4-sys)/liblz4/lib
ZSTD=$(crate_dir zstd-sys)/zstd/lib

mkdir -p "$CACHE"
TMP=$(mktemp -d "$CACHE/.rocksdb-build.XXXXXX")
trap 'rm -rf "$TMP"' EXIT
trap 'exit 130' INT TERM
INCLUDES=(-I"$SYS/rocksdb/include" -I"$SYS/rocksdb" -I"$SYS" -I"$LZ4" -I"$ZSTD")
FLAGS+=("${INCLUDES[@]}")

# Sources that must not share a unit: they define the same names at file scope as others do, or
# set macros which change what follows. Each is a unit of its own.
ALONE='^(db/c|port/stack_trace|util/xxhash|util/crc32c|util/crc32c_arm64|table/block_based/filter_policy|util/compression|util/status|utilities/persistent_cache/.*)\.cc$'

mapfile -t SOURCES < <(grep -v -e '^util/build_version\.cc$' -e '^[[:space:]]*$' "$SYS/rocksdb_lib_sources.txt")
MERGED=() SINGLE=()
for source in "${SOURCES[@]}"; do
    if [[ $source =~ $ALONE ]]; then SINGLE+=("$source"); else MERGED+=("$source"); fi
done

# Neighbours share headers, so a unit is a run of the list; runs are cut by bytes of source, not
# by number of files, so that no unit is much longer than the others.
size_of() { wc -c <"$SYS/rocksdb/$1"; }
total=0
for source in "${MERGED[@]}"; do total=$((total + $(size_of "$source"))); done
limit=$((total / UNITS + 1))
LISTS=() unit=0 bytes=0
for source in "${MERGED[@]}"; do
    size=$(size_of "$source")
    if ((bytes == 0 || bytes + size / 2 > limit)); then
        unit=$((unit + 1)) bytes=0
        LISTS+=("$TMP/$(printf 'unit%02d' "$unit").list")
    fi
    bytes=$((bytes + size))
    echo "$source" >>"${LISTS[-1]}"
done
for source in "${SINGLE[@]}"; do
    name=${source%.cc}
    LISTS+=("$TMP/one-${name//\//-}.list")
    echo "$source" >"${LISTS[-1]}"
done

# Compiles the sources of a list into objects next to it. A unit that does not compile as a whole
# is halved, down to single files, so a new RocksDB with a new clash still builds, only slower.
compile() {
    local list=$1 base=${1%.list} count
    count=$(wc -l <"$list")
    if [ "$count" -eq 1 ]; then
        "$CXX" "${FLAGS[@]}" -c "$SYS/rocksdb/$(cat "$list")" -o "$base.o" && return
        say "cannot compile $(cat "$list")"
        return 1
    fi
    sed "s|.*|#include \"$SYS/rocksdb/&\"|" "$list" >"$base.cc"
    "$CXX" "${FLAGS[@]}" -c "$base.cc" -o "$base.o" 2>"$base.err" && return
    rm -f "$base.o"
    say "$(basename "$base") clashes, halving it: $(grep -m 1 'error' "$base.err" || head -n 1 "$base.err")"
    head -n $((count / 2)) "$list" >"$base-a.list"
    tail -n +$((count / 2 + 1)) "$list" >"$base-b.list"
    compile "$base-a.list" && compile "$base-b.list"
}

say "compiling ${#SOURCES[@]} files as ${#LISTS[@]} units with $JOBS jobs ($OPT); once only, a few minutes"
started=$SECONDS running=0 finished=0 failed=0
finish_one() {
    wait -n || failed=1
    running=$((running - 1)) finished=$((finished + 1))
    say "$finished/${#LISTS[@]}"
}
for list in "${LISTS[@]}"; do
    ((running < JOBS)) || finish_one
    ((failed == 0)) || break
    compile "$list" &
    running=$((running + 1))
done
while ((running > 0)); do finish_one; done
((failed == 0)) || die "failed"
"$CXX" "${FLAGS[@]}" -c "$SYS/build_version.cc" -o "$TMP/build_version.o"

mkdir "$TMP/out"
ar crs "$TMP/out/librocksdb.a" "$TMP"/*.o
touch "$TMP/out/.done"
# Whoever comes second keeps what the first one put there.
[ -e "$OUT" ] || mv "$TMP/out" "$OUT"
[ -f "$OUT/.done" ] || die "$OUT is not complete: remove it"
say "built in $((SECONDS - started)) s: $OUT"
echo "$OUT"
