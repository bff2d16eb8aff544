#!/usr/bin/env bash
# Brings the Ceph whose object gateway (radosgw, RGW) is the second opinion on the
# engine for AWS: another server of IAM, which evaluates conditions of policies itself.
#
#   scripts/install-rgw.sh
#
# Debian's packages are unpacked, with all that they need, into the git-ignored
# .cache/rgw/root and run with their own libraries: this needs no root, starts
# nothing and leaves the machine's packages and apt's own state alone. Safe to run
# again; needs no network once it is there.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
. "$repo/scripts/debian.sh"
cache=$repo/.cache/rgw

suite=sid # IAM below an account of its own came with Ceph 19
packages="radosgw ceph-mon ceph-osd"

say() { printf '%s\n' "$*" >&2; }

# unpack brings Ceph and all that it needs.
unpack() (
	work=$(mktemp -d "$cache/.unpack.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	say "rgw: downloading from Debian $suite (about 160 MB)"
	# shellcheck disable=SC2086 # several packages
	debian_unpack "$work" whole "$suite" $packages || exit 1
	rm -rf "${cache:?}/root"
	mv "$work/root" "$cache/root"
)

# wrap writes programs that run Ceph with the libraries that it was unpacked with.
wrap() {
	local root=$cache/root loader library program
	loader=$(find "$root/usr" -name 'ld-linux-*.so.*' -not -type d | head -n 1)
	library=$(echo "$root"/usr/lib/*-linux-gnu)
	mkdir -p "$cache/bin"
	for program in monmaptool osdmaptool ceph-mon ceph-osd radosgw radosgw-admin; do
		cat >"$cache/bin/$program" <<-END
			#!/bin/sh
			exec "$loader" --library-path "$library:$library/ceph" "$root/usr/bin/$program" "\$@" \
				--erasure-code-dir="$library/ceph/erasure-code" --plugin-dir="$library/ceph" --osd-class-dir="$library/rados-classes"
		END
		chmod +x "$cache/bin/$program"
	done
}

mkdir -p "$cache"
[ -d "$cache/root" ] || unpack || { say "rgw: it could not be had"; exit 1; }
wrap
version=$("$cache/bin/radosgw" --version 2>/dev/null) || { say "rgw: what was unpacked does not run on this machine"; exit 1; }
say "rgw: $(awk '{print $3}' <<<"$version") in $cache"
