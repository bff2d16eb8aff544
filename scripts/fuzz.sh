#!/usr/bin/env bash
# Runs every fuzz target of the repository, one after the other.
#
#   scripts/fuzz.sh [SECONDS]      per target, default 10
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-10}
targets=$(grep -rnoE --include='*_test.go' --exclude-dir=.cache '^func Fuzz[A-Za-z0-9_]+' . | sort)
[ -n "$targets" ] || { echo "fuzz: there are no fuzz targets" >&2; exit 1; }

while IFS=: read -r file _ declaration; do
	name=${declaration#func }
	echo "fuzz: $name in $(dirname "$file"), ${seconds}s"
	go test -run '^$' -fuzz "^${name}\$" -fuzztime "${seconds}s" "$(dirname "$file")" </dev/null
done <<<"$targets"
