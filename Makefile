# Everything a contributor or CI runs. `make` alone lists the targets.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c

# What the mesh needs of the machine: namespaces, redirection, a C compiler (aws-lc).
PACKAGES := build-essential cmake iproute2 iptables util-linux
# What its tests need beyond that: real Envoys (from PyPI), Redis, Prometheus and a browser.
TEST_PACKAGES := python3 python3-venv redis-server chromium chromium-driver prometheus
# Tests make namespaces as root; building and the demo need no root.
ifneq ($(shell id -u),0)
SUDO := sudo -E
RUNNER := --config 'target."cfg(all())".runner=["sudo","-E"]'
endif
# The four simulations: 10,000 seeds each.
SIM_SEEDS ?= 10000
# Which tests on Kubernetes: all, pods (without the scenarios), or api (an API server alone).
KUBE_SET ?= all
CHECK := fmt lint test sim sizes

.PHONY: help setup build programs demo tour check $(CHECK) golden golden-inject bench conformance e2e-kube e2e-istiod images previous screenshots docs

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Who is not allowed to install is told what is missing. Only tests need the second list.
check lint test golden conformance bench screenshots: PACKAGES += $(TEST_PACKAGES)

setup: ## install the Debian packages that are missing
	@missing=""
	for package in $(PACKAGES); do
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q '^install ok' || missing="$$missing $$package"
	done
	[ -z "$$missing" ] && exit 0
	if [ -n "$(SUDO)" ] && ! command -v sudo >/dev/null; then
	  echo "missing packages:$$missing; install them as root: apt-get install$$missing" >&2
	  exit 1
	fi
	echo "installing:$$missing"
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

build: setup ## all programs, unoptimized
	@cargo build --workspace

# What tests need, with the features that tests have: a build without them would be for nothing.
programs: setup
	@cargo build --workspace --all-targets

demo: build ## a bookshop in a mesh on this machine; Ctrl-C ends it
	@target/debug/meshctl demo

tour: build ## the same, as a script with a verdict
	@target/debug/meshctl demo --tour --port 0

check: setup ## what CI runs: formatting, lints, tests, simulations, sizes
	@times=""
	for step in $(CHECK); do
	  echo "== $$step"
	  start=$$SECONDS
	  $(MAKE) --no-print-directory $$step
	  times+="$$step $$((SECONDS - start))\n"
	done
	printf "== seconds\n$$times" | column -t

fmt: ## formatting, checked
	@cargo fmt --all --check

lint: setup ## clippy, warnings are errors
	@cargo lint

test: programs ## every test: units, rows of the specification, real Envoys, the demo's tour
	@cargo test --workspace $(RUNNER)

e2e-kube: programs ## tests on real Kubernetes, which is built first if it is not in the cache (needs root and Go); KUBE_SET=pods: without the scenarios, KUBE_SET=api: without pods
	@run() { cargo test --workspace --test kube $(RUNNER) -- --include-ignored --nocapture --test-threads "$$@"; }
	case $(KUBE_SET) in
	  api) run 2 arms:: faults:: identity:: openshift:: secrets:: status:: ;;
	  pods) run 2 --skip scenarios:: ;;
	  all)
	    $(MAKE) --no-print-directory images previous
	    export E2E_PROGRAMS=$$PWD/target/release E2E_PREVIOUS=$$PWD/target/previous/debug
	    run 2 --skip scenarios::
	    run 1 scenarios:: ;;
	  *) echo "KUBE_SET is api, pods or all" >&2; exit 1 ;;
	esac

e2e-istiod: programs ## our proxies under a real istiod on Kubernetes, both built first if they are not in the cache (needs root and Go)
	@cargo test --workspace --test under_istiod $(RUNNER) -- --include-ignored --nocapture --test-threads 1

images: setup ## an image per component under target/images, made without Docker
	@cargo build --release -p proxy -p pilot -p citadel -p mixer -p meshctl -p bookshop
	@e2e/kube/images.sh target/release target/images

previous: setup ## programs of the commit before, unoptimized: what an upgrade starts from
	@source=target/previous/source; mkdir -p $$source
	git archive HEAD~1 | tar -x -C $$source
	cargo build --workspace --bins --manifest-path $$source/Cargo.toml --target-dir target/previous

sim: ## the seeded simulations; SIM_SEEDS says how many seeds
	@SIM_SEEDS=$(SIM_SEEDS) cargo test --profile sim -p proxy --test sim

golden: programs ## pilot against recorded istiod answers: the table of resources
	@cargo test --workspace --test golden -- --nocapture

golden-inject: ## injected pods against Istio's golden files (needs Go, which fetches them)
	@module=istio.io/istio@$$(sed -nE 's/^const VERSION.*"(.*)";/\1/p' pilot/tests/inject_golden/main.rs)
	go mod download $$module
	cargo test --workspace --test inject_golden -- --ignored --nocapture --test-threads 1

conformance: build ## h2spec against our proxy (needs Go)
	@e2e/conformance/h2spec

bench: setup ## real Envoy against ours, interleaved; tables on stdout
	@cargo build --profile bench-release -p proxy -p mixer -p hairpin
	@python3 e2e/bench/bench.py $(BENCH)

screenshots: programs ## pictures of the live page for the book, made by its test (needs root)
	@FERROMESH_SCREENSHOTS=$(CURDIR)/docs/src/img cargo test --workspace --test live_page $(RUNNER)

docs: ## the book, with mdbook
	@mdbook build docs

sizes: ## the largest files and functions, clone() and unwrap() per 1,000 lines
	@python3 .ci/sizes.py
