#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Builds the fuzz targets and runs them. See docs/fuzzing.md.
#
#   fuzz.sh smoke [SECONDS]       every target for so many seconds (8)
#   fuzz.sh run TARGET SECONDS    one target (or "all"), each for so many seconds
#   fuzz.sh minimise TARGET       adds to the committed corpus what the last runs found new
#
# Needs rustc, cargo and a C++ compiler, no nightly: -Cpasses and -Cllvm-args are stable, and what a
# sanitizer looks for can not happen in a crate without unsafe code.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cd "$here/../.."
out=${CARGO_TARGET_DIR:-target}/fuzz
mkdir -p "$out"
out=$(CDPATH='' cd -- "$out" && pwd)
targets="wire handshake superblock al_block netlink bitmap node"

if [ -z "${CXX:-}" ] && ! command -v c++ >/dev/null; then
    # What the lab installs for the kernel comes with one.
    CXX=$(command -v clang++-19 || command -v clang++) || {
        echo "fuzz.sh: no C++ compiler; apt-get install g++ or clang-19" >&2
        exit 1
    }
    export CXX
fi

build() {
    host=$(rustc -vV | sed -n 's/^host: //p')
    flags="-Cpasses=sancov-module"
    for f in level=4 inline-8bit-counters pc-table trace-compares; do
        flags="$flags -Cllvm-args=-sanitizer-coverage-$f"
    done
    # One unit: otherwise the linker may drop the tables of some.
    RUSTFLAGS="$flags -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1" \
        CARGO_TARGET_DIR="$out" \
        cargo build -q --release -p drbd-fuzz --features libfuzzer --bin drbd-fuzz --target "$host"
    binary=$out/$host/release/drbd-fuzz
}

# Inputs grow with what they have to describe.
longest() {
    case $1 in
        al_block) echo 16388 ;;
        superblock | bitmap) echo 4400 ;;
        *) echo 2048 ;;
    esac
}

fuzz() {
    grown=$out/${3:-corpus}/$1
    findings=$out/findings/$1
    mkdir -p "$grown" "$findings" "$here/corpus/$1" "$here/regressions/$1"
    echo "fuzz.sh: $1 for $2 s"
    DRBD_FUZZ_TARGET=$1 RUST_BACKTRACE=1 "$binary" "$grown" "$here/corpus/$1" \
        "$here/regressions/$1" -max_total_time="$2" -max_len="$(longest "$1")" -timeout=10 \
        -artifact_prefix="$findings/" -print_final_stats=1 -verbosity=0 2>"$out/$1.log" || {
        tail -n 60 "$out/$1.log" >&2
        echo "fuzz.sh: $1 failed; the input lies in $findings; keep it as" \
            "tests/fuzz/regressions/$1/<what it was> and repair" >&2
        exit 1
    }
    sed -n 's/^stat::number_of_executed_units: */  runs: /p' "$out/$1.log"
}

case ${1:-} in
    smoke)
        build
        # What long runs collected would take its time.
        rm -rf "$out/smoke"
        for t in $targets; do fuzz "$t" "${2:-8}" smoke; done
        ;;
    run)
        build
        case ${2:-all} in
            all) for t in $targets; do fuzz "$t" "${3:-60}"; done ;;
            *) fuzz "$2" "${3:-60}" ;;
        esac
        ;;
    minimise)
        build
        DRBD_FUZZ_TARGET=$2 "$binary" -merge=1 -max_len="$(longest "$2")" "$here/corpus/$2" \
            "$out/corpus/$2" 2>"$out/$2.log"
        ;;
    *) sed -n 's/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
