#!/bin/sh
# Every kernel, every mode, on random calls: under AddressSanitizer with UndefinedBehaviorSanitizer,
# under ThreadSanitizer, and, where a cross compiler and qemu are, on AArch64, whose checksum must be
# that of this machine.
#
# usage: sanitize.sh [rounds [seed]]      CC, CROSS_CC, QEMU choose other programs
set -eu
rounds=${1:-1000}
seed=${2:-1}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
sources=$here/../../../pipeline/kernels/csrc
cross=${CROSS_CC:-aarch64-linux-gnu-gcc}
qemu=${QEMU:-qemu-aarch64}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

# compile COMPILER NAME FLAG...
compile() {
    compiler=$1 name=$2
    shift 2
    "$compiler" -std=c11 -O2 -g -Wall -Wextra -Wconversion -Wshadow -Werror -pthread \
        -ffp-contract=off -DEDGE_SMALL_IS_LARGE -I"$sources" "$@" -o "$build/$name" \
        "$sources"/*.c "$here/fuzz.c" -lm
}

compile "${CC:-cc}" plain
plain=$("$build/plain" "$seed" "$rounds")
echo "plain: $plain"

compile "${CC:-cc}" address -fsanitize=address,undefined -fno-sanitize-recover=all
found=$("$build/address" "$seed" "$rounds")
echo "address, undefined: $found"

compile "${CC:-cc}" thread -fsanitize=thread
found=$("$build/thread" "$seed" $((rounds / 10 + 1)))
echo "thread: $found"

if command -v "$cross" >/dev/null && command -v "$qemu" >/dev/null; then
    compile "$cross" arm -static
    arm=$("$qemu" "$build/arm" "$seed" $((rounds / 10 + 1)))
    same=$("$build/plain" "$seed" $((rounds / 10 + 1)))
    echo "aarch64: $arm"
    if [ "${arm##* }" != "${same##* }" ]; then
        echo "aarch64 differs from this machine: $same" >&2
        exit 1
    fi
else
    echo "aarch64: not run, there is no $cross or no $qemu"
fi
