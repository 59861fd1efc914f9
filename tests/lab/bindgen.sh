#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Installs the bindgen that the kernel wants (Debian 12's is too old) to $cache/bindgen.
set -eu
. "$(dirname -- "$0")/lib.sh"
[ -n "${DRBD_RS_LOCKED:-}" ] || take_lock

if "$cache/bindgen/bin/bindgen" --version 2>/dev/null | grep -q " $bindgen_version\$"; then
    say "bindgen $bindgen_version is there"
    exit 0
fi
say "building bindgen $bindgen_version (about a minute)"
tmp=$(mktemp -d "$cache/tmp.bindgen.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
kernel_env
CARGO_TARGET_DIR=$tmp/target cargo install -q bindgen-cli --version "$bindgen_version" --locked \
    --root "$tmp/root"
rm -rf "$cache/bindgen"
mv "$tmp/root" "$cache/bindgen"
