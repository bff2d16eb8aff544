#!/usr/bin/env bash
# Builds the previous release, which nodes of this one must get along with on one
# store, and prints the program's path. Where the history does not reach back to
# it that is a declared exception, and the exit status is 3.
set -euo pipefail

# The last commit with the former schema. A release that is made moves it on.
previous=bf82eeda816729a6da6f013e2b17ed5f349adcd6

repo=$(cd "$(dirname "$0")/.." && pwd -P)
cd "$repo"
mkdir -p .cache/test
program=.cache/test/scaivault-${previous:0:12}
if [ ! -x "$program" ]; then
	if ! git cat-file -e "$previous^{commit}" 2>/dev/null; then
		echo "upgrade: not tested with the previous release: the history does not reach back to ${previous:0:12}" | tee -a .cache/exceptions >&2
		exit 3
	fi
	source=$(mktemp -d)
	trap 'rm -rf "$source"' EXIT
	git archive "$previous" | tar -x -C "$source"
	(cd "$source" && CGO_ENABLED=0 go build -o "$repo/$program.$$" ./cmd/scaivault) >&2
	mv "$program.$$" "$program"
fi
echo "$repo/$program"
