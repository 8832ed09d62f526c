# What a contributor runs. `make test` needs rustup's stable toolchain, a C compiler and nothing else; what a machine lacks for
# more it says at its end, and installs nothing.

.PHONY: test test-packages lint doc features ci setup

# Unit tests, the suite of behaviours, examples (built), and every example in the documentation and the README.
test: setup
	cargo test --features full
	$(MAKE) guards
	SIMULATE_SECONDS=60 cargo test --profile bench --features full --test simulation every_seed -- --nocapture
	@command -v valgrind >/dev/null || echo "left out: the guards that count instructions (install valgrind)"
	@echo "left out: tonic's channel, axum's gateway, a fleet over Redis (make test-packages)"

# Examples and tests with heavy dependencies, in packages of their own. Redis' tests start a server of their own.
test-packages: setup
	cargo test --workspace --exclude tower-oauth2-client
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
	echo "left out: what needs a Redis (install redis-server or valkey-server)"

lint:
	cargo fmt --all --check
	cargo clippy --workspace --features tower-oauth2-client/full --all-targets -- -D warnings -D clippy::incompatible_msrv

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --features full

# Every feature alone, none and all: tests always have all of them on, and would not notice.
features:
	cargo build --no-default-features
	cargo clippy --lib --no-default-features -- -D warnings
	cargo clippy --lib --no-default-features --features reqwest -- -D warnings
	cargo clippy --lib --no-default-features --features rustls -- -D warnings
	cargo clippy --lib --no-default-features --features rustls-no-provider -- -D warnings
	cargo clippy --lib --no-default-features --features rustls-no-provider,redis -- -D warnings
	cargo clippy --lib --no-default-features --features reqwest-middleware -- -D warnings
	cargo clippy --lib --no-default-features --features retry -- -D warnings
	cargo clippy --lib --no-default-features --features tonic -- -D warnings
	cargo clippy --lib --no-default-features --features axum -- -D warnings
	cargo clippy --lib --no-default-features --features jwt -- -D warnings
	cargo clippy --lib --no-default-features --features jwt-aws-lc-rs -- -D warnings
	cargo clippy --lib --no-default-features --features jwt-rust-crypto -- -D warnings
	cargo clippy --lib --no-default-features --features encryption -- -D warnings
	cargo clippy --lib --no-default-features --features redis -- -D warnings
	cargo clippy --lib --no-default-features --features dpop -- -D warnings
	cargo clippy --lib --no-default-features --features dpop,reqwest,jwt-aws-lc-rs -- -D warnings
	cargo clippy --lib --no-default-features --features metrics -- -D warnings
	cargo clippy --lib --no-default-features --features loopback -- -D warnings
	cargo clippy --lib --no-default-features --features test-util -- -D warnings
	cargo clippy --lib --no-default-features --features serde -- -D warnings
	cargo clippy --lib --no-default-features --features serde,jwt -- -D warnings
	cargo clippy --lib --features full -- -D warnings
	cargo test --no-default-features --features rustls-no-provider --test tls
	cargo test --no-default-features --features rustls-no-provider --lib endpoint::tls
	cargo test --no-default-features --features reqwest --lib endpoint::client
	@pkg-config --exists openssl && $(MAKE) native-tls || echo "left out: the feature native-tls (install the headers of OpenSSL, and pkg-config)"

.PHONY: native-tls
native-tls:
	cargo clippy --lib --no-default-features --features native-tls -- -D warnings
	cargo clippy --lib --all-features -- -D warnings
	cargo test --no-default-features --features native-tls --test tls

# The oldest dependencies that Cargo.toml allows; needs a nightly toolchain, and says so where there is none.
.PHONY: minimal-versions
minimal-versions:
	.ci/minimal-versions

# Writes docs/public-api.txt anew, after a change of the public API that is meant. Needs a nightly toolchain.
.PHONY: public-api
public-api:
	.ci/public-api --update

# The example of a store of one's own, a package of its own since it compiles SQLite: it conforms, also over two processes.
.PHONY: store-example
store-example:
	CARGO_TARGET_DIR=target cargo test --locked --manifest-path examples/sqlite_store/Cargo.toml

# Everything that must hold before a change is merged.
ci:
	.ci/run

setup:
	@command -v cargo >/dev/null || { echo "install Rust first: https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { echo "install a C compiler first (Debian: apt install build-essential)"; exit 1; }

# Figures are left in the target folder by each bench; `report` makes tables and plots of them.
.PHONY: bench bench-quick report guards

# For an idle machine: a quarter of an hour. The profile `bench-lto` is with LTO and one codegen unit.
bench:
	cargo bench --features full --bench paired --bench instructions --bench allocations --bench contention --bench storm --bench tenants --bench cold --bench end_to_end
	FIGURES=_lto cargo bench --profile bench-lto --features full --bench paired --bench instructions
	-$(MAKE) -C benches/peers bench
	$(MAKE) report

bench-quick:
	cargo bench --features full --bench paired --bench contention --bench storm --bench tenants --bench cold --bench end_to_end -- --quick
	cargo bench --features full --bench instructions --bench allocations
	$(MAKE) report

report:
	cargo bench --features full --bench report

# Regression guards that count, and what takes too long in a debug build. Instructions need valgrind.
guards:
	cargo test --profile bench --features full --test allocations --test instructions
	cargo test --profile bench --features full --lib a_million_tenants

# Licences, sources and crates that come twice (deny.toml); needs `cargo install cargo-deny`.
.PHONY: deny
deny:
	cargo deny check licenses bans sources

# The engine's cells under loom: every interleaving of a few threads, with up to three preemptions (more:
# LOOM_MAX_PREEMPTIONS=4). Built apart, since each crate is compiled with another flag.
.PHONY: model model-planted
model:
	RUSTFLAGS="--cfg model" CARGO_TARGET_DIR=target/model cargo test --features full --lib engine::model$(if $(MODEL),::$(MODEL)) -- --test-threads=1

# That the models notice: one defect after the other is planted in a copy.
model-planted:
	.ci/model-planted

# Proofs that take longer than tests (docs/proof.md has the figures of the last run).
.PHONY: simulate fuzz

# So many seeds of the simulation, from BASE on. A seed that fails prints itself and the shortest plan that still fails.
SEEDS ?= 2000
BASE ?= 1
simulate:
	SIMULATE_SEEDS=$(SEEDS) SIMULATE_BASE=$(BASE) cargo test --profile bench --features full --test simulation every_seed -- --nocapture

# How many seeds until each of the defects is found that are planted in a copy, one at a time (SEEDS=2000 at most).
.PHONY: simulate-planted
simulate-planted:
	SEEDS=$(SEEDS) .ci/simulate-planted

# One decision of the engine is changed at a time, and a test must notice.
.PHONY: mutants
mutants:
	.ci/mutants

# The same for what has changed elsewhere since SINCE, by cargo-mutants (`cargo install cargo-mutants`); SHARD=0/10 is a tenth of it.
.PHONY: mutants-in-diff
SINCE ?= main~20
SHARD ?= 0/1
mutants-in-diff:
	mkdir -p target
	git diff $(SINCE) -- src ':!src/engine' >target/mutants.diff
	cargo mutants --in-diff target/mutants.diff --output target --features full --jobs 1 --timeout 180 --shard $(SHARD) \
		-- --lib --test behaviours

# Unit tests of what holds the state, under Miri (nightly: `rustup component add miri --toolchain nightly`). Left out is what takes
# minutes there (simulations, threads by the dozen, partitions by the thousand, texts of 64 KiB).
.PHONY: miri
MIRI_PARTS = engine:: token:: request::
MIRI_LEFT_OUT = endpoint setup:: rejection_limiter reference_model million no_reader_sees fifty_holders as_many_wait \
	token::lifetime without_timers first_token_after_a_failure ids_of_all_lengths any_request_comes_back \
	two_threads_that_make those_that_come_again a_cell_in_use the_only_refresh_token the_idle_go neither_a_hanging \
	an_eviction_forks a_tenant_that_is_used a_tenants_token_is_renewed a_step_of_the_wall_clock cells_that_had_to_stay a_header_map_that \
	endless_body a_token_is_checked_once lengths_that_do_not_fit
miri:
	for part in $(MIRI_PARTS); do \
		RUST_BACKTRACE=0 MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 CARGO_TARGET_DIR=target/miri cargo +nightly miri test \
		--no-default-features --features test-util --lib -- $$part $(addprefix --skip ,$(MIRI_LEFT_OUT)) || exit 1; \
	done

# Half an hour over real connections with tokens of some seconds, while everything goes wrong now and then.
.PHONY: soak
MINUTES ?= 30
soak:
	cargo run --release --example soak -- --minutes $(MINUTES)

# Each fuzz target for T seconds, on nightly, with cargo-fuzz (`cargo install cargo-fuzz`). TARGET names one alone.
T ?= 600
TARGET ?=
fuzz:
	cd fuzz && cargo +nightly fuzz build --fuzz-dir .
	cd fuzz && for target in $(or $(TARGET),$$(ls corpus)); do \
		mkdir -p found/$$target artifacts/$$target; \
		target/$$(rustc -vV | sed -n 's/host: //p')/release/$$target found/$$target corpus/$$target \
			-artifact_prefix=artifacts/$$target/ -max_total_time=$(T) -max_len=600 -print_final_stats=1 || exit 1; \
	done
