# `make help` lists what there is. Everything a target needs is brought by
# scripts/ into the git-ignored .cache, once.

SHELL := /bin/bash
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TOOLS := .cache/tools
EXCEPTIONS := .cache/exceptions

# What the tests run against; each is a target that brings it.
SERVERS := postgres mysql redis rabbitmq mongodb sshd moto cloud-tools

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
.PHONY: help build demo test test-all unit race crash crash-nodes crash-matrix bad-disks fence-rounds end-to-end fuzz bench bench-scale fill lint fmt fmt-check vet vuln \
	generate check-generated doc-tools $(SERVERS) rgw test-mongodb test-rgw test-cloud weight tools clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The program, as bin/scaivault
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/scaivault ./cmd/scaivault

demo: build ## A real PostgreSQL user made, used, renewed and killed; leaves nothing running
	scripts/demo.sh

# All checks run even when one fails (-k), so that one run shows everything.
test: $(SERVERS) tools ## Everything, with real servers: what CI runs
	@mkdir -p .cache && : > $(EXCEPTIONS)
	@$(MAKE) -k --no-print-directory unit fmt-check vet lint check-generated vuln; status=$$?; \
	if [ -s $(EXCEPTIONS) ]; then echo; echo 'Declared exceptions of this run:'; sed 's/^/  /' $(EXCEPTIONS); fi; \
	exit $$status

# Each part runs, whatever became of those before it.
test-all: ## test, then everything long: crash-matrix, fence-rounds, bad-disks, end-to-end and crash; says at the end what failed
	@failed=; for part in test crash-matrix fence-rounds bad-disks end-to-end crash; do \
		printf '\n%s: make %s\n' "$$(date +%T)" $$part; \
		$(MAKE) --no-print-directory $$part || failed="$$failed $$part"; \
	done; \
	if [ -n "$$failed" ]; then echo; echo "failed:$$failed"; exit 1; fi; \
	echo; echo 'all passed'

unit: $(SERVERS) doc-tools ## Only go test
	$(GO) test -count=1 -timeout 30m -p $(TEST_PACKAGES) ./...

race: $(SERVERS) ## The domain and the engines with the race detector
	$(GO) test -race -count=1 -timeout 60m -p $(TEST_PACKAGES) ./internal/... ./engine/... ./client/...

crash: postgres ## kill -9, SIGSTOP and broken networks under load for SECONDS, half of them on each store; SEED repeats a schedule
	SCAIVAULT_CRASH_SECONDS=$$(( $(CRASH_SECONDS) / 2 )) SCAIVAULT_CRASH_SUMMARY=$(CURDIR)/.cache/crash-summary.md \
	$(GO) test -count=1 -timeout 120m -v ./test/crash $(if $(SEED),-seed $(SEED))

crash-nodes: postgres ## The same for three nodes on one PostgreSQL store only, for all of the SECONDS
	SCAIVAULT_CRASH_SECONDS=$(CRASH_SECONDS) SCAIVAULT_CRASH_SUMMARY=$(CURDIR)/.cache/crash-nodes-summary.md \
	$(GO) test -count=1 -timeout 120m -v -run 'TestChaos/three' ./test/crash $(if $(SEED),-seed $(SEED))

crash-matrix: $(SERVERS) ## The server killed at every named moment, on both stores, with every version of the source
	@set -o pipefail; SCAIVAULT_TEST_FULL=1 $(GO) test -count=1 -timeout 60m -v -run 'TestCrashMatrix|TestPowerLoss' ./test/failpoints | grep -vE '^ *(=== |--- PASS)'

fence-rounds: postgres ## Fifty revocations in the middle of 20 issuers on three nodes; none survives
	SCAIVAULT_TEST_FULL=1 $(GO) test -count=1 -timeout 60m -v -run TestFenceRounds ./test/failpoints

bad-disks: ## Power cuts, failed flushes, full disks, flipped bits, older copies: the whole matrix, printed
	SCAIVAULT_TEST_FULL=1 $(GO) test -count=1 -timeout 60m -v ./test/disk

end-to-end: $(SERVERS) ## The end-to-end tests with the numbers that are promised: 5,000 leases, 500 overdue, 500 rounds
	SCAIVAULT_TEST_FULL=1 $(GO) test -count=1 -timeout 60m -v ./test/e2e

fuzz: ## Every fuzz target for FUZZ_SECONDS
	scripts/fuzz.sh $(FUZZ_SECONDS)

bench: $(SERVERS) ## Ratios against direct clients of the sources, in one run
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
	$(GO) vet -tags cloud ./engine/...
	$(GO) vet -tags rgw ./test/e2e

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

rabbitmq: ## Bring the RabbitMQ that the tests of scripts use
	@scripts/install-rabbitmq.sh

sshd: ## Bring the OpenSSH that the tests use
	@mkdir -p .cache
	@scripts/install-sshd.sh $(EXCEPTIONS)

test-mongodb: ## The tests of the engine for MongoDB on a real one: MONGODB_URL=mongodb://administrator:password@127.0.0.1:27017
	@test -n "$(MONGODB_URL)" || { echo 'write: make test-mongodb MONGODB_URL=mongodb://administrator:password@127.0.0.1:27017, or the one that go run ./test/mongotest/serve prints'; exit 1; }
	SCAIVAULT_TEST_MONGODB_URL='$(MONGODB_URL)' $(GO) test -count=1 -timeout 30m -v -run '$(REAL_MONGODB_TESTS)' ./engine/mongodb

moto: ## Bring the moto that the tests use in the place of AWS
	@mkdir -p .cache && touch $(EXCEPTIONS)
	@scripts/install-moto.sh $(EXCEPTIONS)

cloud-tools: ## Bring the Azure CLI, and Google's library for Python, that the tests log in with
	@mkdir -p .cache && touch $(EXCEPTIONS)
	@scripts/install-cloud-tools.sh $(EXCEPTIONS)

rgw: ## Bring the Ceph that test-rgw uses
	@scripts/install-rgw.sh

test-rgw: rgw ## The policy that ends users of the engine for AWS, on another server that evaluates policies: Ceph's RGW
	$(GO) test -tags rgw -count=1 -timeout 15m -v -run '^TestRGW' ./test/e2e

# The clouds of which the environment names an account.
CLOUDS = $(if $(SCAIVAULT_TEST_AWS_ACCESS_KEY_ID),aws) $(if $(SCAIVAULT_TEST_AZURE_TENANT_ID),azure) $(if $(SCAIVAULT_TEST_GCP_PROJECT),gcp)

test-cloud: ## The engines of clouds on real accounts, which the environment names as their pages say (docs/engines)
	@test -n "$(strip $(CLOUDS))" || { echo 'set the variables SCAIVAULT_TEST_AWS_…, _AZURE_… or _GCP_… that docs/engines/aws.md, azure.md and gcp.md name'; exit 1; }
	$(GO) test -tags cloud -count=1 -timeout 60m -v -run '^TestCloud' $(CLOUDS:%=./engine/%)

weight: ## How large the program is, and what each engine adds to it
	@scripts/weight.sh

tools: ## Build the pinned linters
	@scripts/install-tools.sh

clean: ## Remove what was built; .cache keeps what was downloaded
	rm -rf bin dist
