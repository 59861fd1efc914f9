# SPDX-License-Identifier: GPL-2.0
# make           the module, for the running kernel or for KDIR=
# make demo      two virtual machines, one replicated disk, a file system that moves
# make check     what CI runs: style, host tests, simulator, module, clusters
# make setup     fetches and builds what the last two need, once (about an hour, mostly kernels)
# make check-features  what DRBD does beside mirroring, on every pairing (ONLY= picks; not timed yet)
# make check-more  further clusters: KASAN, lockdep, teardown (about two hours)
# make campaign  stories and crashes N=20 times with random seeds (hours); ONLY= picks cases
# make bench     fio on a C pair and on a pair of ours, in turn (10 minutes, on a quiet machine)
# make fuzz      looks for inputs that break the core: TARGET=all, SECONDS=60 each (docs/fuzzing.md)
# make sim       the cluster simulator for a minute: saved plans, then fresh seeds
# make sim-soak  the same for HOURS=n on all cores; SEED= begins elsewhere
# make sim-mutants  plants bugs one by one; the simulator has to find each (SECONDS_EACH=120)
# make search    every state of a small world, three ways (hours; STATES=, docs/search.md)
# make golden    captures the reference data of tests/golden from the C driver again
# make golden-transitions  records what C nodes do in each state, as far as it is not known (an hour)
# make clean     removes what the others built here (the cache folder stays)

KDIR ?= /lib/modules/$(shell uname -r)/build
LAB := tests/lab
FLAVOURS := release checked-kasan checked-locks
RUN_LAB = cargo run -q -p drbd-lab --bin drbd-lab --

module:
	@vars=$$($(LAB)/kdir.sh "$(KDIR)") && \
	$(MAKE) -C "$(KDIR)" M="$(CURDIR)" $$vars modules

setup:
	@$(LAB)/setup.sh

# Sources are copied per kernel, see module.sh.
modules: $(FLAVOURS:%=module-%)
module-%:
	@$(LAB)/module.sh $*

# Set-up is short when all is there, and for a demonstration the checked kernels are not needed.
demo:
	@$(LAB)/setup.sh release
	@$(LAB)/module.sh release
	@cargo build -q -p drbd-lab
	@$(RUN_LAB) demo

bench:
	@$(LAB)/setup.sh release
	@$(LAB)/module.sh release
	@cargo build -q -p drbd-lab
	@$(RUN_LAB) bench

golden:
	@$(LAB)/setup.sh release
	@cargo build -q -p drbd-lab
	@$(RUN_LAB) golden tests/golden

golden-transitions:
	@$(LAB)/setup.sh release
	@cargo build -q -p drbd-lab
	@$(RUN_LAB) golden-transitions tests/golden/transitions

SIM = cargo run -q --release -p drbd-sim --bin drbd-sim --
SEED ?= $(shell date +%s)000
sim:
	cargo test -q --release -p drbd-sim
	$(SIM) seconds 50 $(SEED)
	$(SIM) stacked 10 $(SEED)
sim-soak:
	$(SIM) seconds $$(( $(or $(HOURS),1) * 3600 )) $(SEED)
sim-mutants:
	@tests/sim/mutants.sh
# Outer steps only at rest; one order of events, then every order, outer steps anywhere. On all cores.
# Each stops at its first violation and prints the shortest way there, or after STATES= of the last.
SEARCH = cargo run -q --release -p drbd-small --bin drbd-search --
search:
	$(SEARCH) rest 1 5 admin
	$(SEARCH) fixed 2 4
	$(SEARCH) every 1 3 admin
	$(SEARCH) every 2 5 most=$(or $(STATES),30000000) memory=12 recover=16

campaign:
	@$(LAB)/setup.sh
	@$(LAB)/campaign.sh $(or $(N),20) "$(ONLY)"

check: setup
	@$(MAKE) --no-print-directory checks

checks: check-style check-host fuzz-smoke check-module check-vm
	@echo "all checks passed"

check-style:
	cargo fmt --all --check
	CLIPPY_CONF_DIR=$(CURDIR)/$(LAB) cargo clippy -q --workspace --all-targets -- \
		-D warnings

check-host:
	cargo test -q --workspace --exclude drbd-lab --exclude drbd-sim
	cargo test -q --release -p drbd-sim
	cargo test -q -p drbd-lab --lib

# No path of the module may end in a Rust panic: the compiler has to prove it.
check-module: modules
	@if PATH=/usr/lib/llvm-19/bin:$$PATH llvm-nm -u target/module/release/drbd_rs.ko | grep panicking; then \
		echo "the module can panic (see above)"; exit 1; fi
	@echo "unsafe blocks in kapi: $$(cat $$(git ls-files 'drbd_rs/kapi/*.rs') | grep -c 'unsafe {')"

# Two clusters at a time. The rest of tests/vm/tests is `make check-more`.
LAB_TEST = cargo test -q -p drbd-lab
check-vm: modules
	cargo build -q -p drbd-lab
	$(LAB_TEST) --test lab --test story -- --test-threads=2 --skip c_c_locks --skip kasan
	$(LAB_TEST) --test bad_input --test fencing -- --test-threads=2 --skip c_c --skip locks
	$(LAB_TEST) --test crash -- --test-threads=2 --skip c_c --skip kasan --skip locks

# What takes long: KASAN, lockdep in every crash, taking things down at bad moments.
check-more: modules
	cargo build -q -p drbd-lab
	$(LAB_TEST) --no-fail-fast --test story --test crash --test fencing --test teardown -- \
		--test-threads=2

# On two machines that run one scenario after the other; ONLY=trim,resize picks some.
check-features: module-release
	cargo build -q -p drbd-lab
	DRBD_LAB_ONLY=$(ONLY) $(LAB_TEST) --no-fail-fast --test features -- --test-threads=2 in_turn::

# Every target for a few seconds, after all seeds and all that was ever found.
fuzz-smoke:
	@tests/fuzz/fuzz.sh smoke $(or $(SECONDS),8)

fuzz:
	@tests/fuzz/fuzz.sh run "$(or $(TARGET),all)" $(or $(SECONDS),60)

clean:
	rm -rf target/module target/vm-failures target/campaign
	@find drbd_rs . -maxdepth 4 -path ./target -prune -o -path ./.git -prune -o \
		\( -name '*.o' -o -name '*.ko' -o -name '*.mod' -o -name '*.mod.c' -o -name '*.rmeta' \
		-o -name '.*.cmd' -o -name '.*.d' -o -name 'Module.symvers' -o -name 'modules.order' \) \
		-type f -exec rm -f {} +
	cargo clean -q

.PHONY: module setup modules demo bench golden golden-transitions check checks check-more \
	check-style check-host check-module check-vm check-features campaign fuzz fuzz-smoke sim \
	sim-soak sim-mutants search clean
