# What a person does with camscribe's source. `make help` lists it.

CARGO ?= cargo
PREFIX ?= /usr/local
PROGRAM ?= target/release/camscribe
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')

# A CUDA toolkit of yours, or one that is put here.
CUDA_TOOLKIT := $(CURDIR)/target/cuda-toolkit
# That of the GPU in this machine; else 80, which every newer one runs too.
CUDA_COMPUTE_CAP ?= $(or $(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | grep -xE "[0-9]+\.[0-9]+" | head -n 1 | tr -d .),80)
CUDA = CUDA_COMPUTE_CAP=$(CUDA_COMPUTE_CAP) CUDA_HOME=$(or $(CUDA_HOME),$(CUDA_TOOLKIT)) \
    PATH="$(or $(CUDA_HOME),$(CUDA_TOOLKIT))/bin:$$PATH"

FUZZ_SECONDS ?= 60

.PHONY: help demo test build lint deny chaos fuzz cuda gpu-bench install deb deb-cuda test-deb test-ha test-text test-openai

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

demo: ## install what is missing, build, and show the main job at work
	@.ci/install-deps build
	$(CARGO) run --release --locked -- demo

test: ## install what is missing and run every test
	@.ci/install-deps test
	-@.ci/axe
	@CARGO="$(CARGO)" .ci/test

build: ## the program, into target/release
	@.ci/install-deps build
	$(CARGO) build --release --locked

lint: ## formatting, lints, documentation and dependencies, warnings refused
	@.ci/install-deps lint
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	@.ci/deny bans licenses sources

deny: ## licences, sources and known faults of every dependency; fetches the list of the faults
	@.ci/install-deps lint
	@.ci/deny

chaos: ## everything fails at random for 15 minutes (CAMSCRIBE_CHAOS_SECONDS, CAMSCRIBE_CHAOS_SEED)
	@.ci/install-deps test
	CAMSCRIBE_CHAOS_SECONDS=$${CAMSCRIBE_CHAOS_SECONDS:-900} CAMSCRIBE_CHAOS_SEED=$${CAMSCRIBE_CHAOS_SEED:-$$(date +%s)} \
	    $(CARGO) test --locked --test daemon chaos:: -- --nocapture

fuzz: ## hostile input for FUZZ_SECONDS a target; needs a nightly compiler
	@.ci/install-deps test
	$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	for target in $$($(CARGO) fuzz list); do \
	    mkdir -p fuzz/target/finds/$$target; \
	    $(CARGO) +nightly fuzz run --sanitizer none $$target fuzz/target/finds/$$target fuzz/corpus/$$target \
	        -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 || exit 1; \
	done

cuda: ## the program with CUDA, into target/HOST/release (CUDA_HOME, CUDA_COMPUTE_CAP)
	@.ci/install-deps cuda
	@[ -n "$(CUDA_HOME)" ] || .ci/cuda-toolkit $(CUDA_TOOLKIT)
	$(CUDA) $(CARGO) --config .cargo/cuda.toml build --release --locked --features cuda --target $(HOST)

gpu-bench: ## what benches/gpu.sh needs, with CUDA and without GStreamer, into target/HOST/release
	@.ci/install-deps cuda
	@[ -n "$(CUDA_HOME)" ] || .ci/cuda-toolkit $(CUDA_TOOLKIT)
	$(CUDA) $(CARGO) --config .cargo/cuda.toml build --release --locked --no-default-features --features cuda \
	    --target $(HOST) --bin bench --bin golden

# The package of the program that lies in the folder $(1), by what cargo-deb calls the target $(2), and one with
# the debug information that is taken out of the program.
define package
	$(CARGO) deb --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deb
	mkdir -p target/package
	$(1)/camscribe man > target/package/camscribe.1
	$(1)/camscribe completions bash > target/package/camscribe.bash
	$(1)/camscribe completions zsh > target/package/_camscribe
	$(1)/camscribe completions fish > target/package/camscribe.fish
	$(CARGO) deb --no-build --locked --dbgsym $(2)
endef

deb: build ## the Debian package, and that of its debug information, into target/debian
	$(call package,target/release)

deb-cuda: cuda ## the same with CUDA
	$(call package,target/$(HOST)/release,--target $(HOST))

test-deb: deb ## install, upgrade, use and purge the package on a clean Debian 12 under systemd; needs root
	@.ci/test-deb target/debian/camscribe_*.deb

test-ha: build ## what Home Assistant itself makes of the messages; installs it (250 MB) into target/home-assistant
	@.ci/install-deps test
	@tests/home-assistant/run

test-text: build ## the answers of trained text weights against transformers; installs it (7 GB) into target/text-weights
	@tests/text-weights/run

test-openai: build ## what OpenAI's own Python client makes of the API; installs it (30 MB) into target/openai
	@tests/openai/run

install: ## the program that was built (PROGRAM, target/release/camscribe), and its configuration
	@[ -x $(PROGRAM) ] || { echo "there is no $(PROGRAM): run 'make build' first, as yourself" >&2; exit 1; }
	install -D -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/camscribe
	[ -e $(DESTDIR)/etc/camscribe/camscribe.toml ] || \
	    install -D -m 644 config/camscribe.toml $(DESTDIR)/etc/camscribe/camscribe.toml
