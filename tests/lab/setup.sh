#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Prepares everything the module build and the VM tests need. Run it again at any time: what is
# there stays, what was cut short is finished.
#
#   setup.sh            all of it
#   setup.sh build      only what building the module needs: packages, source, bindgen, kernel
#   setup.sh release    all but the checked kernels
set -eu
. "$(dirname -- "$0")/lib.sh"
what=${1:-all}
case $what in all | build | release) ;; *) die "usage: setup.sh [all|build|release]" ;; esac

"$lab/packages.sh"
take_lock
sweep
DRBD_RS_LOCKED=1
export DRBD_RS_LOCKED
"$lab/source.sh"
"$lab/bindgen.sh"
"$lab/kernel.sh" release
[ "$what" = build ] && exit 0
"$lab/rootfs.sh"
"$lab/accel.sh"
if [ "$what" = all ]; then
    "$lab/kernel.sh" checked-kasan
    "$lab/kernel.sh" checked-locks
fi
say "set-up complete in $cache"
