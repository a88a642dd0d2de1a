# The front door. Each goal installs what it lacks (scripts/setup.sh), points the build at the
# prebuilt RocksDB (scripts/env.sh) and calls cargo with the one profile everything shares.

SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PROFILE ?= quick
CARGO_FLAGS := --profile $(PROFILE) --locked
ENV := scripts/setup.sh && . scripts/env.sh
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo lab test ci controls setup build fmt fmt-check clippy doc bench clean-demo

help: ## this list
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 20

demo: ## a three-replica universe with two weeks of flights, and a prompt
	@$(ENV) && cargo build $(CARGO_FLAGS) -p cli && \
		scripts/demo.sh "$(TARGET)/$(PROFILE)/meridian"

lab: ## all experiments with clocks, and their pages opened in a browser
	@$(ENV) && cargo build $(CARGO_FLAGS) -p cli && \
		"$(TARGET)/$(PROFILE)/meridian" lab run-all --out lab-out && scripts/check-reports.sh lab-out

test: ## every test of the workspace
	@$(ENV) && cargo test $(CARGO_FLAGS) --workspace

ci: setup fmt-check clippy doc test controls ## what a change must pass: format, lints, documentation, tests

controls: ## planted faults, which checkers must catch
	@$(ENV) && cargo test $(CARGO_FLAGS) -p sim --features plants --test plants
	@$(ENV) && cargo test $(CARGO_FLAGS) -p txn --features plants --test plants
	@$(ENV) && cargo test $(CARGO_FLAGS) -p paxos --features plants --test plant_single_step --test plant_own_ballot

setup: ## install what is missing (libclang) and compile RocksDB once
	@scripts/setup.sh

build: ## the whole workspace
	@$(ENV) && cargo build $(CARGO_FLAGS) --workspace

fmt: ## format the sources
	@cargo fmt --all

fmt-check:
	@cargo fmt --all --check

clippy: ## lints, warnings are errors
	@$(ENV) && cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings

doc: ## the API documentation, warnings are errors
	@$(ENV) && export RUSTDOCFLAGS="-D warnings" && cargo doc $(CARGO_FLAGS) --no-deps --workspace

bench: ## benchmarks, with the slow release profile
	@$(ENV) && cargo bench --locked --workspace

clean-demo: ## remove the demo's universe
	@data="$${DEMO_DATA:-meridian-data/demo}"; rm -rf "$$data" "$${data%/}.state"
