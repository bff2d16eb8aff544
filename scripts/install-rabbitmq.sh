#!/usr/bin/env bash
# Brings the RabbitMQ that the tests of scripts run against.
#
#   scripts/install-rabbitmq.sh
#
# Debian's packages, RabbitMQ's and those of Erlang, are unpacked into the
# git-ignored .cache/rabbitmq, which needs no root, starts nothing and leaves
# the machine's packages and apt's own state alone. Safe to run again; needs no
# network once it is there.
#
# Environment: SCAIVAULT_TEST_RABBITMQ names a folder to use instead, with
# usr/lib/erlang and usr/lib/rabbitmq in it, such as / itself.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
. "$repo/scripts/debian.sh"
cache=$repo/.cache/rabbitmq

suite=bookworm
packages="rabbitmq-server erlang-base"
for part in asn1 crypto eldap ftp inets mnesia os-mon parsetools public-key runtime-tools ssl syntax-tools tftp tools xmerl; do
	packages="$packages erlang-$part"
done

say() { printf '%s\n' "$*" >&2; }

# runs prints the version of a RabbitMQ whose Erlang works here.
runs() {
	local beam server
	beam=$(echo "$1"/usr/lib/erlang/erts-*/bin/beam.smp)
	server=$(echo "$1"/usr/lib/rabbitmq/lib/rabbitmq_server-*)
	[ -x "$beam" ] && [ -d "$server/plugins" ] && ! ldd "$beam" | grep -q 'not found' && echo "${server##*-}"
}

unpack() (
	mkdir -p "$cache"
	work=$(mktemp -d "$cache/.new.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	say "rabbitmq: downloading (about 32 MB)"
	# shellcheck disable=SC2086 # several packages
	debian_unpack "$work" alone "$suite $suite-security" $packages || exit 1
	runs "$work/root" >/dev/null || { say "rabbitmq: Debian's build does not run on this machine"; exit 1; }
	rm -rf "$cache/root"
	mv "$work/root" "$cache/root"
)

root=${SCAIVAULT_TEST_RABBITMQ:-$cache/root}
if ! runs "$root" >/dev/null; then
	[ -z "${SCAIVAULT_TEST_RABBITMQ:-}" ] || { say "rabbitmq: SCAIVAULT_TEST_RABBITMQ=$root holds none that runs"; exit 1; }
	unpack || { say "rabbitmq: it could not be downloaded: install rabbitmq-server and set SCAIVAULT_TEST_RABBITMQ=/"; exit 1; }
fi
say "rabbitmq: $(runs "$root") in $root"
