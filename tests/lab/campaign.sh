#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# campaign.sh [N [PATTERN]]: runs the stories, the crash and the teardown scenarios N times (20 by
# default), every one with a new random seed each time. PATTERN, an extended regular expression,
# picks cases; they are named TEST:NAME, such as story:ours_ours_kasan or crash:wire_cut::ours_c.
#
# In the environment, ROUNDS=n lets each crash happen n times to the same nodes, one after the
# other, and DRBD_LAB_CLUSTERS=n is how many clusters run at a time (2 by default).
#
# What is run is copied to target/campaign first, so that a campaign of hours keeps testing what it
# began with. A line per run goes to target/campaign/results; consoles, capture and output of a run
# that failed go to target/campaign/failed/CASE-SEED. It ends, also when interrupted, with one line
# per case, and with an error if any run failed.
set -eu
. "$(dirname -- "$0")/lib.sh"
repo=$(cd "$lab/../.." && pwd)
to=$repo/target/campaign

# The kernel that a case runs on, as in tests/vm/tests/story.rs.
flavour() {
    case $1 in
        *_kasan) echo checked-kasan ;;
        *_locks) echo checked-locks ;;
        *) echo release ;;
    esac
}

# One run. It never fails itself, because xargs would stop at that: the results tell.
one() {
    case=$1 seed=$2
    name=$(echo "$case-$seed" | tr -s ':' '-')
    kept=$to/failed/$name
    log=$to/$name.log
    start=$(date +%s)
    verdict=passed
    DRBD_LAB_SEED=$seed DRBD_LAB_ROUNDS=${ROUNDS:-1} DRBD_LAB_FAILURES=$kept \
        DRBD_LAB_AGENT=$to/bin/drbd-lab-agent DRBD_RS_MODULE=$to/bin/$(flavour "$case").ko \
        "$to/bin/${case%%:*}" "${case#*:}" --exact > "$log" 2>&1 || verdict=FAILED
    # A name that no test has runs nothing and succeeds at it.
    grep -q '^running 1 test' "$log" || verdict=FAILED
    if [ "$verdict" = passed ]; then
        rm -f "$log"
    else
        mkdir -p "$kept"
        mv "$log" "$kept/output"
    fi
    echo "$case $seed $verdict $(($(date +%s) - start))" | tee -a "$to/results"
}

cases() {
    for pair in ours_ours ours_c c_ours ours_ours_kasan ours_ours_locks; do
        echo "story:$pair"
    done
    for scenario in primary_lost secondary_lost lost_in_flush wire_cut source_lost \
        target_lost; do
        for pair in ours_ours ours_c c_ours; do
            echo "crash:${scenario}::$pair"
        done
    done
    for scenario in primary_lost secondary_lost lost_in_flush wire_cut source_lost \
        target_lost; do
        for pair in ours_ours_kasan ours_ours_locks; do
            echo "crash:${scenario}::$pair"
        done
    done
    for pair in ours_c c_ours; do
        echo "crash:driver_changed::$pair"
    done
    for scenario in without_peer in_use in_resync frozen_peer cut_wire failing_disk slow_disk \
        unload_configured; do
        for pair in ours_ours ours_c c_ours ours_ours_kasan ours_ours_locks; do
            echo "teardown:${scenario}::$pair"
        done
    done
}

summary() {
    echo
    awk '{ runs[$1]++; if ($3 == "passed") ok[$1]++; else seeds[$1] = seeds[$1] " " $2 }
        END { for (c in runs) { bad += runs[c] - ok[c]
                  printf "%-32s %3d of %3d passed%s\n", c, ok[c], runs[c],
                      seeds[c] ? "; seeds that failed:" seeds[c] : "" | "sort" }
              close("sort"); exit bad > 0 }' "$to/results"
}

if [ "${1:-}" = --one ]; then
    one "$2" "$3"
    exit
fi

rounds=${1:-20}
picked=$(cases | grep -E "${2:-.}") || die "no case is called like $2"
rm -rf "$to"
mkdir -p "$to/bin"
for f in $(for c in $picked; do flavour "$c"; done | sort -u); do
    "$lab/module.sh" "$f"
    cp "$repo/target/module/$f/drbd_rs.ko" "$to/bin/$f.ko"
done
cd "$repo"
cargo build -q -p drbd-lab
cargo test -p drbd-lab --test story --test crash --test teardown --no-run 2>&1 |
    sed -n 's/.*Executable tests\/\([a-z]*\)\.rs (\(.*\))/\1 \2/p' |
    while read -r test path; do
        cp "$path" "$to/bin/$test"
        cp "$(dirname "$(dirname "$path")")/drbd-lab-agent" "$to/bin/"
    done
: > "$to/results"
trap 'exit 130' INT TERM
trap 'summary || exit 1' EXIT
for _ in $(seq "$rounds"); do
    for c in $picked; do
        echo "$c $(od -An -N4 -tu4 /dev/urandom | tr -d ' ')"
    done
done | xargs -P "${DRBD_LAB_CLUSTERS:-2}" -n 2 "$lab/campaign.sh" --one
