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
cache=$repo/.cache/redis
exceptions=${1:-/dev/stderr}

suite=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=http://deb.debian.org/debian
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

# apt with a state of its own: apt verifies the signatures, as always.
apt() {
	apt-get -qq -o Dir::Etc::sourcelist="$cache/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$cache/lists" -o Dir::Cache="$cache/archives" -o APT::Sandbox::User=root "$@" >&2
}

updated=
update() {
	[ -z "$updated" ] || return 0
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { say "there is no apt-get here to download with"; return 1; }
	[ -r "$keyring" ] || { say "there is no $keyring to verify packages by"; return 1; }
	mkdir -p "$cache/lists/partial" "$cache/archives/archives/partial"
	printf "deb [signed-by=$keyring] $mirror %s main\n" $suite $suite-backports >"$cache/sources.list"
	printf "deb [signed-by=$keyring] $mirror-security %s main\n" $suite-security >>"$cache/sources.list"
	apt update && updated=1
}

# unpack brings NAME-server and what it needs.
unpack() (
	name=$1 release=$2
	update || exit 1
	work=$(mktemp -d "$cache/.$name.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	say "$name: downloading (about 2 MB)"
	# shellcheck disable=SC2086 # several packages
	apt -t "$release" download "$name-server" "$name-tools" $libraries || exit 1
	for package in *.deb; do
		dpkg-deb -x "$package" root
	done
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
	unpack redis $suite-security || unpack redis $suite ||
		{ say "redis: it could not be downloaded: install redis-server 6.2 or later, or set SCAIVAULT_TEST_REDIS_BIN"; exit 1; }
	bin=$(present redis)
fi
say "redis: $(runs redis "$bin" | sed 's/.* v=\([^ ]*\).*/\1/') in $bin"

if bin=$(present valkey) || { unpack valkey $suite-backports && bin=$(present valkey); }; then
	say "valkey: $(runs valkey "$bin" | sed 's/.* v=\([^ ]*\).*/\1/') in $bin"
else
	: >"$cache/no-valkey"
	echo "Valkey is not tested: it could not be had (scripts/install-redis.sh says why)" >>"$exceptions"
fi
