#!/usr/bin/env bash
# Keeps one static librocksdb.a for every profile, checkout and clean build of this machine.
#
#   scripts/rocksdb.sh        builds the library if it is not in the cache yet (about 12 minutes on 2 cores)
#   scripts/rocksdb.sh dir    prints the folder that holds it (or will hold it), and builds nothing
#
# The folder goes into ROCKSDB_LIB_DIR, with ROCKSDB_STATIC=1. Its name comes from everything that shapes
# the library: the version in Cargo.lock, the flags and the compiler. A change of any of them builds anew.
# Without these two variables cargo compiles RocksDB itself, once per profile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cache=${SHARDGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/shardgate}

version=$(awk '/^name = "librocksdb-sys"$/ { getline; gsub(/"/, "", $3); print $3; exit }' Cargo.lock)
[ -n "$version" ] || { echo "rocksdb.sh: no librocksdb-sys in Cargo.lock" >&2; exit 1; }

# RocksDB sums every block and every log record with CRC32C: in hardware only when told so.
case $(uname -m) in
    x86_64) flags="-msse4.2 -mpclmul" ;;
    *) flags="" ;;
esac
flags="$flags${CXXFLAGS:+ $CXXFLAGS}"
compiler=$({ ${CXX:-c++} --version 2>/dev/null || echo none; } | head -n 1)
feature_line=$(grep '^rocksdb = ' Cargo.toml)
key=$(printf '%s\n' "$version" "$flags" "$compiler" "$feature_line" | sha256sum | cut -c 1-12)
dir=$cache/rocksdb/$version-$key

case ${1:-build} in
    dir) echo "$dir"; exit ;;
    build) ;;
    *) echo "usage: scripts/rocksdb.sh [dir]" >&2; exit 2 ;;
esac

[ ! -s "$dir/librocksdb.a" ] || exit 0
mkdir -p "$cache/rocksdb"
exec 9> "$cache/rocksdb/lock"
flock 9
[ ! -s "$dir/librocksdb.a" ] || exit 0

echo "rocksdb.sh: building RocksDB $version once, into $dir (10 to 15 minutes on 2 cores)" >&2
work=$cache/rocksdb/build-$key
rm -rf "$work"
env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC ROCKSDB_COMPILE=1 CXXFLAGS="$flags" CARGO_TARGET_DIR="$work" \
    cargo build --ignore-rust-version --release -p librocksdb-sys
built=$(find "$work/release/build" -path '*/librocksdb-sys-*/out/librocksdb.a' -print -quit)
[ -s "$built" ] || { echo "rocksdb.sh: the build left no librocksdb.a in $work" >&2; exit 1; }
mkdir -p "$dir"
# Copied under another name first: a folder with librocksdb.a in it is complete.
cp "$built" "$dir/librocksdb.a.new"
mv "$dir/librocksdb.a.new" "$dir/librocksdb.a"
rm -rf "$work"
