#!/usr/bin/env bash
# Brings the programs of clouds that the tests log in with: the Azure CLI, and Google's
# library for Python, which finds logins as all of Google's libraries do.
#
#   scripts/install-cloud-tools.sh [EXCEPTIONS]
#
# Debian's packages are unpacked, with Python and all that they need, into the
# git-ignored .cache/cloud-tools/root and run with their own libraries: this needs no
# root, starts nothing and leaves the machine's packages and apt's own state alone. Safe
# to run again; needs no network once it is there.
#
# What cannot be had is a declared exception: its line goes into the file EXCEPTIONS.
# gcloud never can: no distribution has it.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
. "$repo/scripts/debian.sh"
cache=$repo/.cache/cloud-tools
exceptions=${1:-/dev/null}

suite=bookworm # trixie has no azure-cli
packages="azure-cli python3-google-auth"

say() { printf '%s\n' "$*" >&2; }

declare_exception() { grep -qsxF "$1" "$exceptions" || echo "$1" >>"$exceptions"; }

# runs prints the version of an Azure CLI that works.
runs() {
	AZURE_CONFIG_DIR=$cache/config AZURE_CORE_COLLECT_TELEMETRY=no "$cache/az" version --output tsv --query '"azure-cli"' 2>/dev/null | grep .
}

unpack() (
	work=$(mktemp -d "$cache/.unpack.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	say "the Azure CLI: downloading from Debian $suite (about 45 MB)"
	# shellcheck disable=SC2086 # several packages
	debian_unpack "$work" whole "$suite" $packages || exit 1
	# Most of its half gigabyte are clients of services in versions that are asked for on Azure Stack only.
	find "$work/root/usr/lib/python3/dist-packages/azure/mgmt" -mindepth 2 -maxdepth 2 -name 'v20*' \
		-not -path '*/mgmt/resource/*' -not -path '*/mgmt/authorization/*' -exec rm -rf {} +
	rm -rf "${cache:?}/root"
	mv "$work/root" "$cache/root"
)

# wrap writes the programs, which run with the libraries that they were unpacked with.
wrap() {
	local root=$cache/root loader libraries python
	loader=$(find "$root/usr" "$root/lib" "$root/lib64" -name 'ld-linux-*.so.*' | head -n 1)
	libraries=$(printf '%s:' "$root"/usr/lib/*-linux-gnu "$root"/lib/*-linux-gnu)
	python=$(find "$root/usr/bin" -name 'python3.[0-9]*' -not -name '*-*' | head -n 1)
	cat >"$cache/python3" <<-END
		#!/bin/sh
		export PYTHONHOME="$root/usr" PYTHONPATH="$root/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1
		exec "$loader" --library-path "$libraries" "$python" "\$@"
	END
	cat >"$cache/az" <<-END
		#!/bin/sh
		exec "$cache/python3" -m azure.cli "\$@"
	END
	chmod +x "$cache/python3" "$cache/az"
	# Without bytecode each start compiles for many seconds.
	"$cache/python3" -m compileall -q "$root"/usr/lib/python3/dist-packages/{msal,knack,requests,urllib3,google,cryptography} \
		"$root"/usr/lib/python3/dist-packages/azure/{cli,core,common} "$root"/usr/lib/python3.[0-9]* >/dev/null 2>&1 || true
}

mkdir -p "$cache"
declare_exception "gcloud itself is not tested, no distribution has it: a program of the test's reads its variables, and Google's library for Python those of libraries"
if ! runs >/dev/null && unpack; then
	wrap
fi
if version=$(runs); then
	say "the Azure CLI: $version in $cache"
else
	rm -f "$cache/az" "$cache/python3"
	declare_exception "the Azure CLI and Google's library for Python are not tested: they could not be had (scripts/install-cloud-tools.sh)"
fi
