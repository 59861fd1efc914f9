#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Installs what the lab needs on Debian 12 and 13; elsewhere, or without root, says what to install.
set -eu
. "$(dirname -- "$0")/lib.sh"

common="clang-$llvm lld-$llvm llvm-$llvm libclang-$llvm-dev make flex bison bc libelf-dev libssl-dev
    dwarves cpio kmod xz-utils zstd rsync curl ca-certificates mmdebstrap qemu-system-x86 e2fsprogs
    iproute2 util-linux"
case $(debian_release) in
    12) packages="rustc-web rust-web-src $common" ; cargo=cargo-web ;;
    13) packages="rustc rust-src $common" ; cargo=cargo ;;
    *) packages="rustc (1.85 or newer, with its library sources) $common" ; cargo=cargo ;;
esac
command -v cargo >/dev/null || packages="$packages $cargo"
packages=$(echo $packages)

missing=
for p in $packages; do
    dpkg-query -W -f='${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || missing="$missing $p"
done
[ -n "$missing" ] || { say "all packages are there"; exit 0; }

case $(debian_release) in
    12 | 13) ;;
    *) say "this is neither Debian 12 nor 13; the equivalents of these packages are needed:"
       echo "$packages"; exit 1 ;;
esac
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "these packages are missing; run as root: apt-get install --no-install-recommends$missing"
    [ "$(debian_release)" = 12 ] || say "rustc and rust-src come from trixie-backports"
    exit 1
fi

say "installing:$missing"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
if [ "$(debian_release)" = 12 ]; then
    apt-get -q update
    apt-get -q -y install --no-install-recommends $missing
else
    # The kernel wants a newer rustc than trixie's own. A private sources list and private lists
    # keep the machine's sources as they are; the installed packages are of course the machine's.
    mkdir -p "$cache/apt/lists/partial"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    {
        echo "deb [signed-by=$key] http://deb.debian.org/debian trixie main"
        echo "deb [signed-by=$key] http://deb.debian.org/debian trixie-backports main"
        echo "deb [signed-by=$key] http://security.debian.org/debian-security trixie-security main"
    } > "$cache/apt/install.list"
    set -- -q -o Dir::Etc::SourceList="$cache/apt/install.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$cache/apt/lists"
    apt-get "$@" update
    # Only the compiler is taken from backports; the rest from the release itself.
    from_backports=$(printf '%s\n' $missing | grep -x -e rustc -e rust-src || true)
    rest=$(printf '%s\n' $missing | grep -v -x -e rustc -e rust-src -e cargo || true)
    [ -z "$rest" ] || apt-get "$@" -y install --no-install-recommends $rest
    [ -z "$from_backports" ] || apt-get "$@" -y -t trixie-backports install \
        --no-install-recommends $from_backports $(command -v cargo >/dev/null || echo cargo)
fi
