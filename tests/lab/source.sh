#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Fetches Debian's linux-source and unpacks it to $cache/source/<version>; `current` points at it.
#
# The package comes from trixie-backports through a private sources list and private apt state,
# so it works on Debian 12 too, without root, and the machine's own sources stay untouched.
set -eu
. "$(dirname -- "$0")/lib.sh"
[ -n "${DRBD_RS_LOCKED:-}" ] || take_lock

# With a source in place the archive is only asked when told to: a test run must not change
# its kernel because a new one was published meanwhile.
if [ -e "$(source_dir)/Makefile" ] && [ -z "${DRBD_RS_UPDATE:-}" ]; then
    say "kernel source: $(basename "$(source_dir)")"
    exit 0
fi

apt=$cache/apt
mkdir -p "$apt/source-lists/partial" "$apt/cache/archives/partial" "$apt/state" "$cache/source"
key=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$key" ] || die "$key is missing (package debian-archive-keyring)"
echo "deb [signed-by=$key] http://deb.debian.org/debian trixie-backports main" > "$apt/source.list"
private() {
    cmd=$1
    shift
    "$cmd" -q -o Dir::Etc::SourceList="$apt/source.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$apt/state" -o Dir::State::Lists="$apt/source-lists" \
        -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache" -o APT::Sandbox::User= "$@"
}
say "asking the Debian archive for linux-source"
private apt-get update >&2

package=
for series in $kernel_series; do
    version=$(private apt-cache show --no-all-versions "linux-source-$series" 2>/dev/null |
        sed -n 's/^Version: //p' | head -n 1)
    [ -z "$version" ] || { package=linux-source-$series; break; }
done
[ -n "$package" ] || die "none of linux-source-{$kernel_series} is in trixie-backports"

final=$cache/source/$version
if [ ! -e "$final/Makefile" ]; then
    tmp=$(mktemp -d "$cache/source/tmp.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    trap 'exit 130' INT TERM
    say "downloading $package $version (about 150 MB)"
    (cd "$tmp" && private apt-get download "$package" >&2)
    say "unpacking (about 1.7 GB)"
    dpkg-deb -x "$tmp"/*.deb "$tmp/deb"
    mkdir "$tmp/tree"
    tar -C "$tmp/tree" --strip-components=1 -xf "$tmp"/deb/usr/src/linux-source-*.tar.xz
    mv -T "$tmp/tree" "$final"
fi
ln -sfn "$version" "$cache/source/current"
say "kernel source: $version"
