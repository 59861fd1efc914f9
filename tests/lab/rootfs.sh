#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Builds the root file system that all nodes share read-only: $cache/rootfs/root-<key>.img
#
# A minimal Debian of the machine's own release with the stock DRBD tools. No init and no
# configuration of ours is in it: the lab's agent comes in the initial RAM disk, and every node
# puts a tmpfs over it, so the image only changes when this list does.
set -eu
. "$(dirname -- "$0")/lib.sh"
[ -n "${DRBD_RS_LOCKED:-}" ] || take_lock

include="drbd-utils,kmod,udev,iproute2,iputils-ping,e2fsprogs,xfsprogs,fio,tcpdump,procps,strace"
include="$include,dmsetup,nftables"
suite=$(debian_suite)
key=$(echo "$suite $include" | sha256sum | cut -c1-12)
final=$cache/rootfs/root-$suite-$key.img
mkdir -p "$cache/rootfs"

if [ ! -e "$final" ]; then
    tmp=$(mktemp -d "$cache/rootfs/tmp.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 130' INT TERM
    chmod 755 "$tmp"
    say "root file system: fetching $suite (about a minute)"
    mode=auto
    [ "$(id -u)" != 0 ] || mode=root
    mmdebstrap --quiet --mode="$mode" --variant=minbase --include="$include" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Languages "none"' \
        --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/*' \
        "$suite" "$tmp/root.tar" >&2
    say "root file system: making the image"
    mkdir "$tmp/root"
    # Device nodes are left out: the nodes mount devtmpfs, and a user may not make them.
    tar -C "$tmp/root" --exclude='./dev/*' -xf "$tmp/root.tar"
    size=$(($(du -sk "$tmp/root" | cut -f1) * 5 / 4 + 16384))
    mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$tmp/root" "$tmp/root.img" \
        "${size}k"
    mv "$tmp/root.img" "$final"
fi
ln -sfn "$(basename "$final")" "$cache/rootfs/current"
say "root file system: $final"
