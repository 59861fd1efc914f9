# SPDX-License-Identifier: GPL-2.0
# Shared by the set-up scripts: where things live, how they log, and the one lock. Sourced, not run.
#
# Everything the lab builds lives in one cache folder that can be deleted at any time. A result
# either gets its final name by one rename (source, bindgen, images) or carries a stamp file that
# is written last (kernels, which must be built in place because Kbuild records its own path).
# So every script may be killed at any point and simply run again.

cache=${DRBD_RS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/drbd-rs}
lab=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
llvm=19
jobs=${JOBS:-$(nproc)}
bindgen_version=0.72.1
# Newest first. Patch levels come and go in the archive, so only the series is named.
kernel_series="7.3 7.2"

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "drbd_rs: $*" >&2; }
die() { say "error: $*"; exit 1; }

# Two set-ups at once would trample each other: the second waits for the first.
take_lock() {
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    if ! flock -n 9; then
        say "another set-up is using $cache, waiting for it"
        flock 9
    fi
}

# Leftovers of runs that were killed. Only called with the lock held.
sweep() { rm -rf "$cache"/*/tmp.* "$cache"/tmp.*; }

# The version the machine reports, such as "12" or "13"; empty if it is not Debian.
debian_release() {
    (
        ID=
        VERSION_ID=
        . /etc/os-release 2>/dev/null
        [ "$ID" = debian ] && echo "$VERSION_ID"
    ) || true
}

# The suite that the root file system of the VMs is built from.
debian_suite() {
    case $(debian_release) in
        13) echo trixie ;;
        *) echo bookworm ;;
    esac
}

# The compiler of the kernel. It must carry its own core sources; a rustup toolchain usually has
# none, so the distribution's is asked for by its full path.
kernel_rustc=${KERNEL_RUSTC:-/usr/bin/rustc}

# The variables that every make of the kernel and of modules for it is called with.
kernel_env() {
    PATH=/usr/lib/llvm-$llvm/bin:$PATH
    LIBCLANG_PATH=/usr/lib/llvm-$llvm/lib
    export PATH LIBCLANG_PATH
}
kmake() {
    make LLVM=-$llvm RUSTC="$kernel_rustc" HOSTRUSTC="$kernel_rustc" \
        BINDGEN="$cache/bindgen/bin/bindgen" "$@"
}

# Path of the unpacked kernel source: the one that `source.sh` chose last.
source_dir() { readlink -f "$cache/source/current" 2>/dev/null || true; }
