#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Builds one test kernel: kernel.sh release | checked-kasan | checked-locks
#
# Result: $cache/kernel/<flavour> -> a build folder with arch/x86/boot/bzImage, everything an
# external Rust module needs, and modules.img (an ext4 image of /lib/modules, stripped). The folder
# is keyed by source version, configuration and compiler, because Rust metadata only serves the very
# compiler that wrote it.
set -eu
. "$(dirname -- "$0")/lib.sh"
flavour=${1:?usage: kernel.sh release|checked-kasan|checked-locks}
[ -e "$lab/kernel/$flavour.config" ] || die "no configuration for a kernel called $flavour"
[ -n "${DRBD_RS_LOCKED:-}" ] || take_lock
kernel_env

src=$(source_dir)
[ -n "$src" ] || die "no kernel source yet: run tests/lab/setup.sh"
wanted=$(mktemp)
trap 'rm -f "$wanted"' EXIT
trap 'exit 130' INT TERM
cat "$lab/kernel/base.config" "$lab/kernel/$flavour.config" > "$wanted"
key=$({ cat "$wanted"; "$kernel_rustc" -Vv; "clang-$llvm" --version; } | sha256sum | cut -c1-12)
out=$cache/kernel/$(basename "$src")-$flavour-$key

if [ ! -e "$out/.complete" ]; then
    mkdir -p "$out"
    make_in() { kmake -C "$src" O="$out" "$@"; }
    say "kernel $flavour: configuring"
    make_in -s rustavailable >&2 || die "the kernel does not accept this Rust toolchain"
    make_in -s tinyconfig >&2
    cat "$wanted" >> "$out/.config"
    make_in -s olddefconfig > "$out/config.log" 2>&1 || { cat "$out/config.log" >&2; exit 1; }
    # olddefconfig drops what it does not know or cannot have, silently. The last request counts.
    dropped=$(awk -F= '/^CONFIG_/ { v = $0; sub(/^[^=]*=/, "", v)
            if (FILENAME == ARGV[1]) want[$1] = v; else have[$1] = v }
        END { for (o in want) { h = (o in have) ? have[o] : "n"
            if (h != want[o]) print o "=" want[o] " became " h } }' "$wanted" "$out/.config")
    [ -z "$dropped" ] || die "kernel $flavour: these options did not survive: $dropped"

    say "kernel $flavour: building with -j$jobs in $out (10 to 20 minutes on two cores)"
    # One line a minute shows that it is alive; the whole log is beside the result.
    # It gives the lock back and ends with this script even if that is killed.
    ( exec 9>&-
      while sleep 60 && kill -0 $$ 2>/dev/null; do
          say "kernel $flavour: $(grep -c '^  ' "$out/build.log") steps done"
      done ) &
    ticker=$!
    trap 'kill "$ticker" 2>/dev/null || true; rm -f "$wanted"' EXIT
    make_in -j"$jobs" bzImage modules > "$out/build.log" 2>&1 || {
        tail -n 30 "$out/build.log" >&2
        die "kernel $flavour: the build failed, see $out/build.log"
    }
    kill "$ticker" 2>/dev/null || true

    say "kernel $flavour: packing the modules"
    rm -rf "$out/modroot" "$out/modules.img"
    make_in -s INSTALL_MOD_PATH="$out/modroot" INSTALL_MOD_STRIP=1 modules_install >&2
    rm -f "$out"/modroot/lib/modules/*/build "$out"/modroot/lib/modules/*/source
    size=$(($(du -sk "$out/modroot" | cut -f1) * 5 / 4 + 4096))
    mke2fs -q -t ext4 -O ^has_journal -m 0 -d "$out/modroot/lib/modules" "$out/modules.tmp" \
        "${size}k"
    mv "$out/modules.tmp" "$out/modules.img"
    rm -rf "$out/modroot"
    make_in -s kernelrelease > "$out/release.tmp"
    mv "$out/release.tmp" "$out/release"
    touch "$out/.complete"
fi
ln -sfn "$(basename "$out")" "$cache/kernel/$flavour"
say "kernel $flavour: $(cat "$out/release") in $out"
