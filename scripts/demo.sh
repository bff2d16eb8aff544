#!/usr/bin/env bash
# Shows ScaiVault at work against a real PostgreSQL, step by step (test/demo).
# Brings what is missing, leaves nothing running, works again without network.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v go >/dev/null || {
	echo 'demo: Go is missing: https://go.dev/doc/install' >&2
	exit 1
}
# Any version does, so without network what the machine has is good enough.
scripts/install-postgres.sh 17 || scripts/install-postgres.sh 15 || echo 'demo: going on with the PostgreSQL that is here' >&2
[ -x bin/scaivault ] || make --no-print-directory build
exec go run ./test/demo bin/scaivault
