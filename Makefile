# `make help` lists what there is. Everything a target needs is brought by
# scripts/ into the git-ignored .cache, once.

SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TOOLS := .cache/tools
EXCEPTIONS := .cache/exceptions

# Packages tested at the same time: each may run several database servers.
TEST_PACKAGES ?= 2
# How long the crash test goes on. SECONDS in the environment is the shell's own.
CRASH_SECONDS = $(if $(filter command line,$(origin SECONDS)),$(SECONDS),600)
# Those that need no more than a MongoDB; the others are of sets, clusters and servers of another kind.
REAL_MONGODB_TESTS := ^Test(Conformance|Settle|Fence|Sweep|PrepareRole|Privileges|MissingRights|ListOfOneDatabase|OpenRefuses|SourceID|RebuiltServer|RootRotationCutOff|Recipe)$$
# Leases of fill and bench-scale.
N ?= 1000000
# Seconds per fuzz target.
FUZZ_SECONDS ?= 10

.DEFAULT_GOAL := help
.PHONY: help build demo test unit race crash crash-nodes crash-matrix bad-disks fence-rounds end-to-end fuzz bench bench-scale fill lint fmt fmt-check vet vuln \
	generate check-generated doc-tools postgres mysql redis mongodb test-mongodb test-cloud tools clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The program, as bin/scaivault
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/scaivault ./cmd/scaivault

demo: build ## A real PostgreSQL user made, used, renewed and killed; leaves nothing running
	scripts/demo.sh

# All checks run even when one fails (-k), so that one run shows everything.
test: postgres mysql redis mongodb tools ## Everything, with real servers: what CI runs
	@mkdir -p .cache && : > $(EXCEPTIONS)
	@$(MAKE) -k --no-print-directory unit fmt-check vet lint check-generated vuln; status=$$?; \
	if [ -s $(EXCEPTIONS) ]; then echo; echo 'Declared exceptions of this run:'; sed 's/^/  /' $(EXCEPTIONS); fi; \
	exit $$status

unit: postgres mysql redis mongodb doc-tools ## Only go test
	$(GO) test -count=1 -timeout 30m -p $(TEST_PACKAGES) ./...

race: postgres mysql redis mongodb ## The domain and the engines with the race detector
	$(GO) test -race -count=1 -timeout 60m -p $(TEST_PACKAGES) ./internal/... ./engine/... ./client/...

crash: postgres ## kill -9, SIGSTOP and broken networks under load for SECONDS, half of them on each store; SEED repeats a schedule
	SCAIVAULT_CRASH_SECONDS=$$(( $(CRASH_SECONDS) / 2 )) SCAIVAULT_CRASH_SUMMARY=$(CURDIR)/.cache/crash-summary.md \
	$(GO) test -count=1 -timeout 120m -v ./test/crash $(if $(SEED),-seed $(SEED))

crash-nodes: postgres ## The same for three nodes on one PostgreSQL store only, for all of the SECONDS
	SCAIVAULT_CRASH_SECONDS=$(CRASH_SECONDS) SCAIVAULT_CRASH_SUMMARY=$(CURDIR)/.cache/crash-nodes-summary.md \
	$(GO) test -count=1 -timeout 120m -v -run 'TestChaos/three' ./test/crash $(if $(SEED),-seed $(SEED))

crash-matrix: postgres mysql redis mongodb ## The server killed at every named moment, on both stores, with every version of the source
	@set -o pipefail; SCAIVAULT_TEST_FULL=1 $(GO) test -count=1 -timeout 60m -v -run 'TestCrashMatrix|TestPowerLoss|TestMongoDBCrashes' ./test/failpoints | grep -vE '^ *(=== |--- PASS)'

fence-rounds: postgres ## Fifty revocations in the middle of 20 issuers on three nodes; none survives
	SCAIVAULT_TEST_FULL=1 $(GO) test -count=1 -timeout 60m -v -run TestFenceRounds ./test/failpoints

bad-disks: ## Power cuts, failed flushes, full disks, flipped bits, older copies: the whole matrix, printed
	SCAIVAULT_TEST_FULL=1 $(GO) test -count=1 -timeout 60m -v ./test/disk

end-to-end: postgres mysql redis mongodb ## The end-to-end tests with the numbers that are promised: 5,000 leases, 500 overdue, 500 rounds
	SCAIVAULT_TEST_FULL=1 $(GO) test -count=1 -timeout 60m -v ./test/e2e

fuzz: ## Every fuzz target for FUZZ_SECONDS
	scripts/fuzz.sh $(FUZZ_SECONDS)

bench: postgres mysql redis mongodb ## Ratios against direct clients of the sources, in one run
	$(GO) run ./test/load

bench-scale: postgres ## Starts, memory, lists, operations and revocation with N leases, on both stores
	$(GO) run ./test/load -only '^scale$$' -leases $(N)

fill: ## N leases into the store that DATA_DIR or DATABASE_URL names, while no server runs
	$(GO) run ./test/load fill -n $(N)

lint: tools ## golangci-lint with .golangci.yml
	$(TOOLS)/golangci-lint run --allow-serial-runners ./...

fmt: ## Format the source
	gofmt -w $$(find . -name '*.go' -not -path './.cache/*')

fmt-check:
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path './.cache/*')); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi

vet:
	$(GO) vet ./...

vuln: tools ## Known vulnerabilities that our code can reach
	@mkdir -p .cache
	scripts/vuln.sh $(EXCEPTIONS)

generate: ## The files that are made from the code
	@mkdir -p .cache
	$(GO) run ./cmd/scaivault openapi > .cache/openapi.yaml
	mv .cache/openapi.yaml api/openapi.yaml

check-generated: ## Fail when a generated file is stale
	@mkdir -p .cache
	@$(GO) run ./cmd/scaivault openapi > .cache/openapi.yaml
	@diff -u api/openapi.yaml .cache/openapi.yaml || { echo 'api/openapi.yaml is stale: run make generate'; exit 1; }

doc-tools: ## Bring what the blocks of the documentation use
	@scripts/install-doc-tools.sh

postgres: ## Bring the PostgreSQL versions that the demo and the tests use
	@scripts/install-postgres.sh

mysql: ## Bring the MariaDB and the MySQL that the tests use
	@mkdir -p .cache
	@scripts/install-mysql.sh $(EXCEPTIONS)

redis: ## Bring the Redis and the Valkey that the tests use
	@mkdir -p .cache
	@scripts/install-redis.sh $(EXCEPTIONS)

mongodb: ## Bring the FerretDB that the tests use in the place of a MongoDB
	@mkdir -p .cache && touch $(EXCEPTIONS)
	@scripts/install-ferretdb.sh $(EXCEPTIONS)

test-mongodb: ## The tests of the engine for MongoDB on a real one: MONGODB_URL=mongodb://administrator:password@host:port
	@test -n "$(MONGODB_URL)" || { echo 'write: make test-mongodb MONGODB_URL=mongodb://administrator:password@host:port'; exit 1; }
	SCAIVAULT_TEST_MONGODB_URL='$(MONGODB_URL)' $(GO) test -count=1 -timeout 30m -v -run '$(REAL_MONGODB_TESTS)' ./engine/mongodb

test-cloud: ## The engines for clouds on real accounts, which the environment names: see docs/engines/azure.md
	$(GO) test -tags cloud -count=1 -timeout 60m -v -run '^TestCloud' ./engine/azure

tools: ## Build the pinned linters
	@scripts/install-tools.sh

clean: ## Remove what was built; .cache keeps what was downloaded
	rm -rf bin dist
