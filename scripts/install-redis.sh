#!/usr/bin/env bash
# Brings the Redis and the Valkey that the tests run against.
#
#   scripts/install-redis.sh [EXCEPTIONS]
#
# What is in PATH is kept. Else Debian's packages are unpacked into the
# git-ignored .cache/redis/<name>, which needs no root, starts nothing and
# leaves the machine's packages and apt's own state alone. Safe to run again;
# needs no network once both are there.
#
# Redis is needed. A Valkey that cannot be had is a declared exception: its line
# goes into the file EXCEPTIONS, and the tests leave it out.
#
# Environment: SCAIVAULT_TEST_REDIS_BIN and SCAIVAULT_TEST_VALKEY_BIN name
# folders to use instead.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
. "$repo/scripts/debian.sh"
cache=$repo/.cache/redis
exceptions=${1:-/dev/stderr}

suite=bookworm
libraries="libatomic1 libjemalloc2 liblzf1"

say() { printf '%s\n' "$*" >&2; }

# runs prints the version of a server that works.
runs() { LD_LIBRARY_PATH="$(dirname "$2")/lib" "$2/$1-server" --version 2>/dev/null; }

# present prints the folder in which a server is.
present() {
	local override
	override=SCAIVAULT_TEST_$(tr '[:lower:]' '[:upper:]' <<<"$1")_BIN
	if [ -n "${!override:-}" ]; then
		runs "$1" "${!override}" >/dev/null || { say "$1: $override=${!override} holds no $1-server that runs"; exit 1; }
		echo "${!override}"
	elif command -v "$1-server" >/dev/null; then
		dirname "$(command -v "$1-server")"
	elif runs "$1" "$cache/$1/bin" >/dev/null; then
		echo "$cache/$1/bin"
	else
		return 1
	fi
}

# unpack brings NAME-server of SUITES and what it needs.
unpack() (
	name=$1 suites=$2
	work=$(mktemp -d "$cache/.$name.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	say "$name: downloading (about 2 MB)"
	# shellcheck disable=SC2086 # several packages
	debian_unpack "$work" alone "$suites" "$name-server" "$name-tools" $libraries || exit 1
	mkdir -p new/lib
	mv root/usr/bin new/bin
	cp -a root/usr/lib/*-linux-*/*.so* new/lib/
	cp -a root/lib/*-linux-*/*.so* new/lib/ 2>/dev/null || true
	runs "$name" "$PWD/new/bin" >/dev/null || { say "$name: Debian's build does not run on this machine"; exit 1; }
	rm -rf "${cache:?}/$name"
	mv new "$cache/$name"
)

mkdir -p "$cache"
rm -f "$cache/no-valkey"
if ! bin=$(present redis); then
	unpack redis "$suite $suite-security" ||
		{ say "redis: it could not be downloaded: install redis-server 6.2 or later, or set SCAIVAULT_TEST_REDIS_BIN"; exit 1; }
	bin=$(present redis)
fi
say "redis: $(runs redis "$bin" | sed 's/.* v=\([^ ]*\).*/\1/') in $bin"

if bin=$(present valkey) || { unpack valkey "$suite $suite-backports" && bin=$(present valkey); }; then
	say "valkey: $(runs valkey "$bin" | sed 's/.* v=\([^ ]*\).*/\1/') in $bin"
else
	: >"$cache/no-valkey"
	echo "Valkey is not tested: it could not be had (scripts/install-redis.sh says why)" >>"$exceptions"
fi
