#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# kdir.sh KDIR: can drbd_rs be built for this kernel? Prints the make variables to build it with
# (compiler and LLVM suffix), or one sentence on what is wrong and what to do, and fails.
set -eu
kdir=${1:?usage: kdir.sh KDIR}
refuse() {
    echo "drbd_rs cannot be built for the kernel in $kdir: $1" >&2
    echo "$2" >&2
    exit 1
}
own="No kernel at hand? \`make setup\` builds a fitting one; then:\
 make KDIR=~/.cache/drbd-rs/kernel/release"

[ -d "$kdir" ] || refuse "there is no such folder." \
    "Install the headers of the kernel (linux-headers-\$(uname -r)) or name its build folder by\
 KDIR=. $own"
config=$kdir/include/config/auto.conf
[ -r "$config" ] || refuse "it is not a prepared build folder ($config is missing)." \
    "Run 'make modules_prepare' there, or name another one by KDIR=. $own"
value() { sed -n "s/^CONFIG_$1=//p" "$config" | tr -d '"'; }

[ "$(value RUST)" = y ] || refuse "it was built without Rust (CONFIG_RUST is not set)." \
    "No Debian kernel has it yet: build one with CONFIG_RUST=y. $own"

release=$(cat "$kdir/include/config/kernel.release" 2>/dev/null || echo unknown)
major=${release%%.*}
rest=${release#*.}
minor=${rest%%[!0-9]*}
case $major$minor in *[!0-9]* | '') refuse "its version '$release' is not known." "$own" ;; esac
if [ "$major" -lt 7 ] || { [ "$major" -eq 7 ] && [ "$minor" -lt 2 ]; }; then
    refuse "it is Linux $release, the Rust interfaces needed came with 7.2." \
        "Use 7.2 or newer. $own"
fi

# Rust metadata only serves the very compiler that wrote it.
wanted=$(value RUSTC_VERSION_TEXT)
rustc=
for candidate in ${RUSTC:-} ${KERNEL_RUSTC:-} /usr/bin/rustc rustc; do
    if [ "$("$candidate" --version 2>/dev/null)" = "$wanted" ]; then
        rustc=$candidate
        break
    fi
done
if [ -z "$rustc" ]; then
    here=$(rustc --version 2>/dev/null || echo 'an installed one')
    refuse "it was built by '$wanted', which is not installed here." \
        "Install that compiler and name it by RUSTC=, or rebuild the kernel with $here."
fi
printf 'RUSTC=%s HOSTRUSTC=%s' "$rustc" "$rustc"

# A kernel built by clang wants the same clang for the module's C file.
if [ "$(value CC_IS_CLANG)" = y ]; then
    version=$(value CLANG_VERSION)
    suffix=-$((version / 10000))
    if command -v "clang$suffix" >/dev/null; then
        printf ' LLVM=%s' "$suffix"
    elif [ -x "/usr/lib/llvm$suffix/bin/clang" ]; then
        printf ' LLVM=/usr/lib/llvm%s/bin/' "$suffix"
    elif command -v clang >/dev/null; then
        printf ' LLVM=1'
    else
        echo >&2
        refuse "it was built by clang ${suffix#-}, which is not installed here." \
            "Install clang$suffix, lld$suffix and llvm$suffix."
    fi
fi
echo
