#!/usr/bin/env bash
# Brings the FerretDB that the tests of the engine for MongoDB run against.
#
#   scripts/install-ferretdb.sh [EXCEPTIONS]
#
# No registry has a mongod. FerretDB speaks MongoDB's protocol and is built from
# its Go module, pinned in scripts/ferretdb/go.mod, into the git-ignored
# .cache/mongo: some minutes, once. What is there, or in PATH, is kept; then no
# network is needed. What FerretDB lacks, test/mongotest does; that this is not a
# mongod is a declared exception: its line goes into the file EXCEPTIONS.
#
# Environment: SCAIVAULT_TEST_FERRETDB names a binary to use instead;
# SCAIVAULT_TEST_MONGODB_URL a real MongoDB, and then nothing is built.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
cache=$repo/.cache/mongo
module=github.com/FerretDB/FerretDB
exceptions=${1:-/dev/null}
go=${GO:-go}

say() { printf '%s\n' "$*" >&2; }

if [ -n "${SCAIVAULT_TEST_MONGODB_URL:-}" ]; then
	say "mongodb: the one of SCAIVAULT_TEST_MONGODB_URL"
	exit 0
fi

exceptions=$(realpath "$exceptions")
line="MongoDB itself is not tested, but FerretDB behind fronts that emulate roles, sessions and sets (test/mongotest says exactly what); make test-mongodb MONGODB_URL=... tests on a real one"
grep -qsxF "$line" "$exceptions" || echo "$line" >>"$exceptions"

cd "$repo/scripts/ferretdb"
version=$("$go" list -m -f '{{.Version}}' "$module")

# runs prints the version of a binary that works.
runs() { "$1" --version 2>/dev/null | sed -n 's/^version: //p'; }

for binary in "${SCAIVAULT_TEST_FERRETDB:-}" "$(command -v ferretdb || true)" "$cache/ferretdb"; do
	if [ -n "$binary" ] && [ "$(runs "$binary")" = "$version" ]; then
		say "ferretdb: $version in $binary"
		exit 0
	fi
done
if [ -n "${SCAIVAULT_TEST_FERRETDB:-}" ]; then
	say "ferretdb: SCAIVAULT_TEST_FERRETDB=$SCAIVAULT_TEST_FERRETDB is not version $version"
	exit 1
fi

say "ferretdb: building $version (about two minutes, once)"
mkdir -p "$cache"
"$go" mod download "$module" # verified by go.sum here; what it needs itself, by its own
work=$(mktemp -d "$cache/.build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cp -r "$("$go" list -m -f '{{.Dir}}' "$module")/." "$work/source"
chmod -R u+w "$work/source"
echo "$version" >"$work/source/build/version/version.txt" # which it wants to be released with
cd "$work/source"
GOFLAGS=-mod=readonly CGO_ENABLED=0 "$go" build -trimpath -o "$work/ferretdb" ./cmd/ferretdb
[ "$(runs "$work/ferretdb")" = "$version" ] || { say "ferretdb: what was built does not run"; exit 1; }
mv "$work/ferretdb" "$cache/ferretdb"
say "ferretdb: $version in $cache/ferretdb"
