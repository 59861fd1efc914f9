#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Plants one bug after the other in a copy of the core; the simulator has SECONDS_EACH for each.
# Usage: mutants.sh [first] [last]
set -eu
cd "$(dirname "$0")/../.."
each=${SECONDS_EACH:-120}
dir=${TMPDIR:-/tmp}/drbd-sim-mutants.$(id -u)
target=$dir/target
mkdir -p "$dir/drbd_rs" "$dir/tests"
cargo build -q --release -p drbd-sim
sim=$dir/plain
cp "${CARGO_TARGET_DIR:-target}/release/drbd-sim" "$sim"
count=$("$sim" mutants tests/sim/mutants.txt)
survivors=0
export SIM_RATES=$dir/rates SIM_PLAIN=$sim
"$sim" rates "$((each / 2))" >"$SIM_RATES"
for n in $(seq "${1:-1}" "${2:-$count}"); do
	rm -rf "$dir/drbd_rs/core" "$dir/tests/sim"
	cp -r drbd_rs/core "$dir/drbd_rs/"
	cp -r tests/sim "$dir/tests/"
	# Of the workspace only what was copied.
	sed '/"drbd_rs\/core"/b; /"tests\/sim"/b; /^    ".*",$/d' Cargo.toml >"$dir/Cargo.toml"
	name=$("$sim" mutant tests/sim/mutants.txt "$n" "$dir/drbd_rs/core/src")
	if ! CARGO_TARGET_DIR=$target RUSTFLAGS=-Awarnings cargo build -q --release \
		--manifest-path "$dir/Cargo.toml" -p drbd-sim 2>"$dir/errors"; then
		echo "$n $name: DOES NOT COMPILE"
		head -5 "$dir/errors"
		survivors=$((survivors + 1))
		continue
	fi
	# A run that does not end is caught, too: nothing else stops a core that loops within a step.
	caught=0
	result=$(timeout "$((each * 2 + 60))" "$target/release/drbd-sim" hunt "$each" \
		tests/sim/regressions/*.plan) || caught=$?
	if test "$caught" = 124; then
		result="caught: a run does not end"
	elif test "$caught" = 0; then
		survivors=$((survivors + 1))
	fi
	echo "$n $name: $result"
done
echo "$survivors of $count not caught"
test "$survivors" = 0
