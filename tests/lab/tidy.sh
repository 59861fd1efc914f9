#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The rules of style that no compiler checks, over every file that git knows. Prints each offence.
set -eu
cd "$(dirname -- "$0")/../.."
bad=$(
    git ls-files -z --cached --others --exclude-standard -- '*.rs' '*.c' '*.h' '*.sh' |
    xargs -0 awk '
        FNR == 1 { spdx = 0; doc = 0; if (FILENAME ~ /\.sh$/) doc = 1 }
        FNR <= 2 && /SPDX-License-Identifier: GPL-2\.0/ { spdx = 1 }
        FNR == 3 && !spdx { print FILENAME ": no SPDX line" }
        FILENAME !~ /\.sh$/ && length($0) > 100 { print FILENAME ":" FNR ": over 100 columns" }
        FNR == 801 { print FILENAME ": over 800 lines" }
        /[ \t]$/ { print FILENAME ":" FNR ": blanks at the end" }
        FILENAME ~ /\.rs$/ && /(todo|unimplemented|dbg)!\(/ {
            print FILENAME ":" FNR ": unfinished" }
        FILENAME ~ /\.rs$/ && /allow\(dead_code\)/ { print FILENAME ":" FNR ": dead code" }
        FILENAME ~ /\.rs$/ && FILENAME !~ /^drbd_rs\/kapi\// && /unsafe (\{|fn|impl)/ {
            print FILENAME ":" FNR ": unsafe outside kapi" }
    '
    git ls-files --cached --others --exclude-standard -- '*.rs' |
    grep -E '/(utils?|misc|common|helpers?)\.rs$' | sed 's/$/: a file name that says nothing/' || true
    git ls-files --cached --others --exclude-standard -- '*.rs' | while read -r f; do
        [ -e "$f" ] || continue
        head -n 3 "$f" | grep -q '^//!' || echo "$f: does not say what it is (//!)"
    done
)
[ -z "$bad" ] || { echo "$bad"; exit 1; }
