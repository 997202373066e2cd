# The project's commands. `make up` and `make test` are all that a fresh
# Debian 12 needs; each installs what it misses. Ubuntu is untested.
#
#   make up      a cluster from examples/home.toml on this machine's libvirt
#   make down    takes it away again; asks first, and with YES=1 does not
#   make test    every test, the ones on three VMs included
#   make bench   the measured figures, or one: make bench BENCH=name
#   make plot    docs/performance-scale.svg, from what make bench has measured
#   make pictures  docs/pictures: the dashboard, as tmux and Chromium show it
#   make soak    half an hour of random faults on three VMs: SOAK_SEED, SOAK_SECONDS
#   make fuzz    malformed traffic on every socket and from plugins, ten minutes each: FUZZ_SEED, FUZZ_SECONDS, FUZZ_TARGET
#   make lint    formatting, clippy, documentation, licences, scripts

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:

# Everything expensive lives outside of the checkout and outlasts it.
CACHE := $(or $(K8S_MYHOME_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/k8s-myhome)
export K8S_MYHOME_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
# The tree's own plugins, by their digests: cargo-build writes it, the host agent's build reads it. The same in every
# build, or each would undo the other's.
export K8SCTL_TREE_PLUGINS := $(CARGO_TARGET_DIR)/tree-plugins

# As in common.sh: whoever calls, programs answer in one language, and root's
# programs are found.
export LC_ALL := C.UTF-8
export PATH := $(PATH)$(if $(findstring :/usr/sbin:,:$(PATH):),,:/usr/local/sbin:/usr/sbin:/sbin)

CLUSTER ?= examples/home.toml
LAB := tests/lab
DIST := $(CACHE)/dist
# For a recipe that calls cargo: deps may have found one outside of the PATH.
RUST := . $(LAB)/common.sh

# In a lab of their own; LAB_BUNDLE=FILE runs the same on another Kubernetes. A
# password for sudo is asked for first, and again behind what takes long and
# needs none.
define lab_tests
$(RUST)
cargo test -p lab-tests --no-run
$(LAB)/with-sudo $(LAB)/run $(LAB)/cargo-test --live -p lab-tests --offline --no-fail-fast
endef

.PHONY: help deps build up down test lab-test bench plot pictures soak fuzz lint

help:
	@sed -n 's/^#  *\(make .*\)/\1/p' Makefile

deps:
	@$(LAB)/deps

build: deps
	@$(LAB)/cargo-build
	$(LAB)/install "$(DIST)"

up: build
	@$(LAB)/install-system "$(DIST)"
	$(LAB)/ensure-bundle "$(CLUSTER)"
	k8sctl image build -f "$(CLUSTER)"
	k8sctl up -f "$(CLUSTER)"

down:
	@k8sctl down -f "$(CLUSTER)" $(if $(filter 1,$(YES)),--yes)

test:
	@$(LAB)/with-sudo $(LAB)/prepare
	$(RUST)
	cargo test --workspace --exclude lab-tests --no-run
	cargo test -p lab-tests --no-run
	$(LAB)/with-sudo $(LAB)/cargo-test --workspace --exclude lab-tests --no-fail-fast
	$(lab_tests)

lab-test:
	@$(lab_tests)

# A lab, and all that it needs, only for those that measure real VMs.
bench: deps
	@$(RUST)
	status=0
	suites=" $$(cargo run --quiet --package bench-figures -- $(BENCH) | tr '\n' ' ')"
	if [[ $$suites == *" fleet "* ]]; then
	  $(LAB)/deps bench || echo "bench: goes on with what is there" >&2
	  cargo bench -p fleet-tests --no-run
	  $(LAB)/with-sudo cargo bench --offline -p fleet-tests --bench figures -- $(BENCH) || status=$$?
	fi
	for suite in "spawn plugin-process" "plugins host-plugins"; do
	  [[ $$suites == *" $${suite%% *} "* ]] || continue
	  $(LAB)/cargo-build
	  # An API server, and what it needs, for those who apply something.
	  if [[ $$suite == plugins* ]]; then
	    $(LAB)/deps lab
	    $(LAB)/build-kubernetes
	    $(LAB)/build-bundle
	  fi
	  cargo bench -p "$${suite#* }" --no-run
	  $(LAB)/with-sudo env PATH="$$PATH:$$CACHE/lab-bin:$$CACHE/kubernetes/$$LAB_KUBERNETES/bin" \
	    cargo bench --offline -p "$${suite#* }" --bench figures -- $(BENCH) || status=$$?
	done
	if [[ $$suites == *" lab "* ]]; then
	  $(LAB)/with-sudo $(LAB)/prepare
	  cargo bench -p lab-tests --no-run
	  $(LAB)/with-sudo $(LAB)/run cargo bench --offline -p lab-tests -- $(BENCH) || status=$$?
	fi
	exit "$$status"

# Of the last make bench BENCH=scale of this checkout.
plot: deps
	@$(RUST)
	cargo run --quiet --package bench-figures --bin bench-plot -- target/bench/figures.json docs/performance-scale.svg

# Of a fake host agent's cluster: neither VM nor lab.
pictures:
	@$(LAB)/deps lab
	$(RUST)
	K8SCTL_PICTURES=docs/pictures cargo test -p ctl --test pictures -- --exact docs::the_pictures_of_the_docs_are_taken

# On a cluster of its own in a lab; the same seed brings the same faults in the same order.
soak:
	@$(LAB)/with-sudo $(LAB)/prepare
	$(RUST)
	cargo test -p lab-tests --no-run
	LAB_PHASES=half-an-hour $(LAB)/with-sudo $(LAB)/run \
	  cargo test --offline -p lab-tests --test cluster -- --nocapture

# The tests of make test, for longer; no VM and no lab. The same seed sends the same.
fuzz: deps
	@$(RUST)
	cargo test --release -p fleet-tests --test malformed --no-run
	cargo test --release -p plugin-process --test fuzz --no-run
	export FUZZ_SECONDS=$${FUZZ_SECONDS:-600}
	status=0
	cargo test --release --offline -p plugin-process --test fuzz -- --nocapture || status=$$?
	$(LAB)/with-sudo cargo test --release --offline -p fleet-tests --test malformed -- --nocapture || status=$$?
	exit "$$status"

lint:
	@$(LAB)/deps lab || echo "lint: goes on with what is there" >&2
	$(RUST)
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	$(LAB)/cargo-deny check licenses bans sources
	$(LAB)/check-scripts
