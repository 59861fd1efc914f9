#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Finds out whether KVM works here and writes "kvm" or "tcg" to $cache/accel.
#
# That /dev/kvm exists says little: on some nested hosts a vCPU is created and then fails. So the
# release kernel is booted with it; without a disk it must get as far as missing its root.
set -eu
. "$(dirname -- "$0")/lib.sh"
kernel=$cache/kernel/release/arch/x86/boot/bzImage
[ -e "$kernel" ] || die "no release kernel yet"
accel=tcg
# In a shell of its own, which is where the message goes if QEMU aborts.
boots_with_kvm() (
    timeout 30 qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults \
    -display none -no-reboot -serial stdio -kernel "$kernel" \
    -append "console=ttyS0 panic=-1 root=/dev/none" 2>/dev/null </dev/null |
    grep -q "Unable to mount root"
) 2>/dev/null
if [ -w /dev/kvm ] && boots_with_kvm; then
    accel=kvm
fi
echo "$accel" > "$cache/accel.tmp"
mv "$cache/accel.tmp" "$cache/accel"
say "virtual machines run with: $accel"
