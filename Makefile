# assertd: what a person runs. Each target installs what it needs first (tests/setup/install.sh) and
# says so; a second run is quick. The tools it makes live under target/ and in cargo's own directory.

KEYSTORE ?= pkcs11
export KEYSTORE

CARGO ?= cargo
PEERS := target/peers

# Where `make install` puts things, and the programs it takes.
DESTDIR ?=
PREFIX ?= /usr
BUILD ?= target/release

# The end-to-end tests that are the same whatever holds the keys. Names say what is of one kind.
ANY_KEYSTORE := not test(/pkcs11_/) and not test(/^several::/)

# How long each fuzz target runs.
FUZZ_S ?= 1800

.PHONY: help build install uninstall demo test test-systemd test-long outages rotations crashes defences mutants fuzz bench lint clean setup peers soak long

help:                ## list the targets
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "KEYSTORE=$(KEYSTORE) chooses what holds the keys in the demo: pkcs11 (SoftHSM) or tpm (swtpm)."

build:               ## build the programs, optimised
	$(CARGO) build --release --locked

# Does not build: root should not.
install:             ## install what `make build` built: DESTDIR= PREFIX=/usr BUILD=target/release
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" BUILD="$(BUILD)" systemd/install.sh

uninstall:           ## remove it again; configuration, keys and the audit log stay
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" systemd/install.sh uninstall

demo: export ASSERTD_PEERS := $(CURDIR)/$(PEERS)
demo:                ## show the product: a workload, a token, a real authorization server
	@tests/setup/install.sh demo
	@tests/setup/venv.sh
	$(CARGO) build --release --locked -p broker -p keystore-$(KEYSTORE)
	@tests/demo/run.sh

# Tests wait more than they work (two cores are idle for half of the time), so there are three for two cores.
# What measures time has the machine to itself whatever the number is (.config/nextest.toml).
test: export NEXTEST_TEST_THREADS ?= $(shell echo $$(($$(nproc) * 3 / 2)))
test: lint           ## format, lint, build, self-check of the peers, units, every test
	$(CARGO) build --workspace --all-targets --locked
	@tests/setup/venv.sh
	tests/peers/selfcheck.sh
	$(CARGO) test --doc --workspace --locked --quiet
	$(CARGO) run --quiet --locked -p tests --bin units
	$(CARGO) nextest run --workspace --locked
	KEYSTORE=tpm $(CARGO) nextest run --locked -p tests --test e2e -E '$(ANY_KEYSTORE)'

# UNITS_BUDGET_S=180 in the environment makes it fail if the checks take longer than that.
test-systemd: setup  ## boot a real systemd (as root) and check the units in it
	$(CARGO) build --locked --workspace
	$(CARGO) run --quiet --locked -p tests --bin units

test-long: setup peers ## the tests that take minutes: soak, many crashes, floods, rotations, podman, Debian 13, machines with a TPM and an old kernel
	@tests/setup/install.sh long
	tests/setup/kryoptic.sh
	$(CARGO) build --locked --workspace --all-targets
	@echo "the soak runs beside all that follows, and writes target/soak.log"
	@$(MAKE) --no-print-directory soak >target/soak.log 2>&1 & soak=$$!; \
	trap 'kill $$soak' INT TERM; \
	$(MAKE) --no-print-directory long; long=$$?; \
	wait $$soak || { cat target/soak.log; exit 1; }; \
	tail -n 12 target/soak.log; exit $$long

# SOAK_S in the environment has it try with less than half an hour.
soak:
	$(CARGO) nextest run --locked -p tests --test faults --profile long --run-ignored all --no-capture -E 'test(/^soak::/)'

long:
	tests/setup/tree.sh trixie target/trees/trixie
	$(CARGO) run --quiet --locked -p tests --bin units -- --tree target/trees/trixie
	$(MAKE) demo KEYSTORE=pkcs11
	$(MAKE) demo KEYSTORE=tpm
	tests/setup/tree.sh trixie target/trees/trixie-vm vm
	$(CARGO) run --quiet --locked -p tests --bin vm -- --tree target/trees/trixie-vm
	$(MAKE) outages
	$(MAKE) rotations
	tests/setup/tree.sh bookworm target/trees/bookworm-vm vm
	$(CARGO) run --release --quiet --locked -p tests --bin vm -- --group old-kernel
	$(CARGO) nextest run --workspace --locked --profile long --run-ignored all -E 'not test(/^soak::/)'

# About a minute for each: every patch is a build. FEW="row_05 row_13" chooses some.
defences: setup      ## take each defence away in a copy of the tree, and see that its test fails
	tests/setup/defences.sh $(FEW)

# Half a minute for each of some 200 changes. FILES="broker/src/policy.rs" chooses some.
mutants:             ## change the code that decides, one place at a time, and see that tests notice
	tests/setup/mutants.sh $(FILES)

# FUZZ_JOBS=2 in the environment runs two at once. Building takes some minutes the first time.
fuzz: setup          ## run the fuzz targets, or TARGET="protocol claims", FUZZ_S=1800 seconds each
	@CARGO="$(CARGO)" tests/setup/fuzz.sh $(FUZZ_S) $(TARGET)

# Words in FAULTS choose the faults whose names hold one of them.
outages: setup       ## fail tokens under load, measure how long; writes target/bench/outages.json
	$(CARGO) build --release --locked --workspace
	$(CARGO) run --release --quiet --locked -p tests --bin outages -- $(FAULTS)

# Words in KEYSTORES choose: pkcs11 tpm. Five minutes for both.
rotations: setup     ## rotate keys under 200 verifying clients; writes target/bench/rotation.json
	$(CARGO) build --release --locked --workspace
	$(CARGO) run --release --quiet --locked -p tests --bin rotations -- $(KEYSTORES)

# Words in POINTS choose lines of its table that hold all of them, such as "keystore-tpm SIGKILL".
# Not optimised: a promise that was not kept unwinds there, and the next point is tried.
crashes: setup       ## kill a rotation at each of its system calls and fail each write of state; prints N
	$(CARGO) build --locked --workspace
	$(CARGO) run --quiet --locked -p tests --bin crashes -- $(POINTS)

bench: setup         ## measure; writes target/bench/summary.json
	$(CARGO) build --release --locked --workspace
	$(CARGO) run --release --locked -p tests --bin bench

lint: setup          ## formatting and clippy, warnings refused
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

clean:               ## remove everything that was built here
	$(CARGO) clean

setup:
	@tests/setup/install.sh test

peers:
	@tests/setup/venv.sh
