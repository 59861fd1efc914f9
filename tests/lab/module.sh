#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# module.sh FLAVOUR: builds drbd_rs for a test kernel in target/module/FLAVOUR/.
#
# Kbuild leaves its objects beside the sources, so every kernel gets its own copy of them; only
# what changed is copied, and what was built stays, so that a second build takes seconds.
set -eu
. "$(dirname -- "$0")/lib.sh"
flavour=${1:?usage: module.sh FLAVOUR}
kdir=$cache/kernel/$flavour
[ -e "$kdir/.complete" ] || die "the $flavour kernel is not built: run \`make setup\`"
repo=$(cd "$lab/../.." && pwd)
to=$repo/target/module/$flavour
mkdir -p "$to"
rsync -a --delete --filter='P *.o' --filter='P *.ko' --filter='P *.mod' --filter='P *.mod.c' \
    --filter='P *.rmeta' --filter='P *.cmd' --filter='P *.d' --filter='P Module.symvers' \
    --filter='P modules.order' --filter='P *.log' --exclude='*.o' --exclude='*.ko' \
    --exclude='*.rmeta' --exclude='*.cmd' --exclude='*.d' --exclude='/target' --exclude='*/target' \
    "$repo/Kbuild" "$repo/include" "$repo/drbd_rs" "$to/"
# A kernel that was built anew makes the old objects useless without their being older.
stamp=$(readlink -f "$kdir")
if [ "$(cat "$to/kernel.log" 2>/dev/null)" != "$stamp" ]; then
    find "$to" \( -name '*.o' -o -name '*.ko' -o -name '*.cmd' -o -name '*.rmeta' \) -delete
    echo "$stamp" > "$to/kernel.log"
fi
kernel_env
vars=$("$lab/kdir.sh" "$kdir")
# shellcheck disable=SC2086 # the variables are words
make -s -C "$stamp" M="$to" $vars modules
say "built $to/drbd_rs.ko"
