# The commands of this project. `make demo` and `make test` install what they need; see scripts/setup.sh.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

CACHE := $(or $(SHARDGATE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/shardgate)

# s3s 0.17.0 declares Rust 1.96 and compiles and runs on 1.95, which is the toolchain of this project.
# Later releases of s3s may use newer language features, so it is pinned in Cargo.toml.
CARGO_FLAGS := --ignore-rust-version

# RocksDB is compiled once for all profiles. The folder depends on the compiler, which `setup` may only
# be about to install: expanded where it is used, not when this file is read.
export ROCKSDB_LIB_DIR = $(shell scripts/rocksdb.sh dir)
export ROCKSDB_STATIC := 1

# CI builds outside of the checkout, so that a fresh clone starts warm.
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(CACHE)/target
CARGO_FLAGS += --locked
endif
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))

# Tests that start processes start these binaries.
export SHARDGATE_BIN_DIR ?= $(TARGET)/release
CARGO_DENY := $(CACHE)/tools/cargo-deny-$(shell sed -n 's/^cargo_deny_version=//p' scripts/setup.sh)/bin/cargo-deny

DATA ?= ./shardgate-data
DISKS ?=
LISTEN ?= 127.0.0.1:9000

.PHONY: help setup rocksdb build demo check test test-unit test-clients bench bench-catalog bench-disk bench-volume-max fmt clean

help:
	@echo "make demo    build and run a pool of $(or $(DISKS),six) local folders in $(DATA), S3 on $(LISTEN)"
	@echo "             (DATA=, DISKS= and LISTEN= change these)"
	@echo "make build   release binaries: $(TARGET)/release/shardgate and shardgate-agent"
	@echo "make check   formatting, clippy, licences and sources, documentation, tidy"
	@echo "make test    every test, with the real S3 clients"
	@echo "make bench   costs of the data path, memory, slow clients, stalled agents, into bench-results/"
	@echo "make bench-catalog  commits per second, listings of ten million keys, checkpoints"
	@echo "make bench-disk  the disk store beside a file per record, RocksDB and fio"
	@echo "make fmt     formats the code"
	@echo "make clean   removes build output (the RocksDB library and the tools stay in $(CACHE))"

setup:
	@scripts/setup.sh

rocksdb: setup
	@scripts/rocksdb.sh

build: rocksdb
	cargo build $(CARGO_FLAGS) --release -p shardgate -p shardgate-agent

demo: build
	@exec $(TARGET)/release/shardgate demo --data $(DATA) $(addprefix --disks ,$(DISKS)) --listen $(LISTEN)

check: rocksdb
	@scripts/setup.sh check
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	$(CARGO_DENY) check licenses bans sources
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --workspace --no-deps
	cargo test $(CARGO_FLAGS) -p shardgate-tests --test tidy -- --nocapture

test: test-unit test-clients

# Unit, property and process tests. Processes are the release binaries.
test-unit: build
	cargo test $(CARGO_FLAGS) --workspace --exclude shardgate-s3-compat-tests --no-fail-fast

# Real clients, two pools at a time: each case is mostly a client's own work.
test-clients: build
	@scripts/setup.sh test
	cargo test $(CARGO_FLAGS) -p shardgate-s3-compat-tests --no-fail-fast -- --test-threads=2

bench: build
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- data-path
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- memory
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- slow
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- stalled

# Fills buckets of ten million keys first.
bench-catalog: rocksdb
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- commits
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- listing
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- checkpoint

# An hour on a slow disk, and 50 GB of it for its 10 million records.
bench-disk: rocksdb
	@scripts/setup.sh bench
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- disk-store

# Extents of volumes beside files of their own, by length: for volume_max.
bench-volume-max: rocksdb
	cargo run $(CARGO_FLAGS) --release -p shardgate-bench -- disk-store --volume-max

fmt:
	cargo fmt --all

clean:
	cargo clean
