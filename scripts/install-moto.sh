#!/usr/bin/env bash
# Brings the moto that the tests of the engine for AWS run against: a server with
# AWS's IAM and STS, which checks signatures and evaluates policies.
#
#   scripts/install-moto.sh [EXCEPTIONS]
#
# Debian's packages are unpacked, with Python and all that they need, into the
# git-ignored .cache/moto/root and run with their own libraries: this needs no
# root, starts nothing and leaves the machine's packages and apt's own state
# alone. Safe to run again; needs no network once it is there.
#
# What moto lacks, test/awstest does; that it is not AWS is a declared exception:
# its line goes into the file EXCEPTIONS.
#
# Environment: SCAIVAULT_TEST_MOTO names a moto_server to use instead.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
. "$repo/scripts/debian.sh"
cache=$repo/.cache/moto
exceptions=${1:-/dev/null}

suite=trixie
packages="python3-moto python3-flask-cors"

say() { printf '%s\n' "$*" >&2; }

# runs prints the version of a moto_server that works.
runs() { "$1" --version 2>/dev/null | tail -n 1; }

# unpack brings moto and all that it needs.
unpack() (
	work=$(mktemp -d "$cache/.unpack.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	say "moto: downloading from Debian $suite (about 60 MB)"
	# shellcheck disable=SC2086 # several packages
	debian_unpack "$work" whole "$suite" $packages || exit 1
	rm -rf "${cache:?}/root"
	mv "$work/root" "$cache/root"
)

# wrap writes the program that runs moto with the libraries that it was unpacked with.
wrap() {
	local root=$cache/root loader libraries python
	loader=$(find "$root/usr" -name 'ld-linux-*.so.*' -not -type d | head -n 1)
	libraries=$(printf '%s:' "$root"/usr/lib/*-linux-gnu)
	python=$(find "$root/usr/bin" -name 'python3.[0-9]*' -not -name '*-*' | head -n 1)
	cat >"$cache/moto_server" <<-END
		#!/bin/sh
		export PYTHONHOME="$root/usr" PYTHONPATH="$root/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1
		exec "$loader" --library-path "$libraries" "$python" -c 'import sys; from moto.server import main; import moto; print(moto.__version__) if "--version" in sys.argv else main(sys.argv[1:])' "\$@"
	END
	chmod +x "$cache/moto_server"
	# Without bytecode each start compiles for many seconds.
	"$loader" --library-path "$libraries" /usr/bin/env -i PYTHONHOME="$root/usr" "$loader" --library-path "$libraries" "$python" \
		-m compileall -q "$root"/usr/lib/python3/dist-packages/{moto,botocore,boto3,flask,werkzeug,jinja2,cryptography,requests,responses,urllib3} "$root"/usr/lib/python3.[0-9]* >/dev/null 2>&1 || true
}

mkdir -p "$cache"
if [ "$exceptions" != /dev/null ]; then
	line="AWS itself is not tested, but moto behind a front that emulates dates in policies and what else it lacks (test/awstest says exactly what); make test-rgw tests those dates on a Ceph, make test-cloud everything on a real account"
	grep -qsxF "$line" "$exceptions" || echo "$line" >>"$exceptions"
fi
if [ -n "${SCAIVAULT_TEST_MOTO:-}" ]; then
	version=$(runs "$SCAIVAULT_TEST_MOTO") && [ -n "$version" ] || { say "moto: SCAIVAULT_TEST_MOTO=$SCAIVAULT_TEST_MOTO does not run"; exit 1; }
	say "moto: $version in $SCAIVAULT_TEST_MOTO"
	exit 0
fi
if [ ! -x "$cache/moto_server" ] || [ ! -d "$cache/root" ]; then
	unpack || { say "moto: it could not be had: set SCAIVAULT_TEST_MOTO"; exit 1; }
	wrap
fi
version=$(runs "$cache/moto_server") && [ -n "$version" ] || { say "moto: what was unpacked does not run on this machine"; exit 1; }
say "moto: $version in $cache"
