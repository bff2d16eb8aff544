#!/usr/bin/env bash
# Brings the programs of others that the tests give credentials of clouds to: the Azure
# CLI, kubectl, and Google's library for Python, which finds logins as all of Google's
# libraries do.
#
#   scripts/install-cloud-tools.sh [EXCEPTIONS]
#
# Debian's packages are unpacked, with Python and all that they need, into the
# git-ignored .cache/cloud-tools and run with their own libraries: this needs no root,
# starts nothing and leaves the machine's packages and apt's own state alone. Safe to run
# again; needs no network once it is there.
#
# What cannot be had is a declared exception: its line goes into the file EXCEPTIONS.
# gcloud never can: Debian has none.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
. "$repo/scripts/debian.sh"
cache=$repo/.cache/cloud-tools
exceptions=${1:-/dev/null}

say() { printf '%s\n' "$*" >&2; }

declare_exception() { grep -qsxF "$1" "$exceptions" || echo "$1" >>"$exceptions"; }

# unpack FOLDER SUITE MEGABYTES PACKAGE… brings packages and all that they need.
unpack() (
	folder=$1 suite=$2
	work=$(mktemp -d "$cache/.unpack.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	say "${*:4}: downloading from Debian $suite (about $3 MB)"
	debian_unpack "$work" whole "$suite" "${@:4}" || exit 1
	# Most of what the Azure CLI brings are clients of services in versions that Azure Stack alone asks for.
	rm -rf "$work"/root/usr/lib/python3/dist-packages/azure/mgmt/[b-qs-z]*/v20*
	rm -rf "${cache:?}/$folder"
	mv "$work/root" "$cache/$folder"
)

# wrap NAME FOLDER PROGRAM… writes a program that runs one with the libraries that it was unpacked with.
wrap() {
	local name=$1 root=$cache/$2 loader libraries
	shift 2
	loader=$(find "$root" -name 'ld-linux-*.so.*' | head -n 1)
	libraries=$(printf '%s:' "$root"/usr/lib/*-linux-gnu "$root"/lib/*-linux-gnu)
	cat >"$cache/$name" <<-END
		#!/bin/sh
		export PYTHONHOME="$root/usr" PYTHONPATH="$root/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1
		exec "$loader" --library-path "$libraries" $(printf '"%s" ' "$@") "\$@"
	END
	chmod +x "$cache/$name"
}

azure() {
	unpack azure-root bookworm 45 azure-cli python3-google-auth || return 1 # trixie has no azure-cli
	local python
	python=$(find "$cache/azure-root/usr/bin" -name 'python3.[0-9]*' -not -name '*-*' | head -n 1)
	wrap python3 azure-root "$python"
	wrap az azure-root "$python" -m azure.cli
	# Without bytecode each start compiles for many seconds.
	"$cache/python3" -m compileall -q "$cache"/azure-root/usr/lib/python3/dist-packages/{msal,knack,requests,urllib3,google,cryptography} \
		"$cache"/azure-root/usr/lib/python3/dist-packages/azure/{cli,core,common} "$cache"/azure-root/usr/lib/python3.[0-9]* >/dev/null 2>&1 || true
}

kubectl() {
	unpack kubectl-root trixie 20 kubectl || return 1
	wrap kubectl kubectl-root "$cache/kubectl-root/usr/bin/kubectl"
}

# Each prints the version of what works.
azure_runs() {
	AZURE_CONFIG_DIR=$cache/config AZURE_CORE_COLLECT_TELEMETRY=no "$cache/az" version --output tsv --query '"azure-cli"' 2>/dev/null | grep .
}
kubectl_runs() { "$cache/kubectl" version --client 2>/dev/null | sed -n 's/^Client Version: //p' | grep .; }

# bring NAME WHAT PROGRAM… brings what does not run yet.
bring() {
	local version
	"$1_runs" >/dev/null || "$1" || true
	if version=$("$1_runs"); then
		say "$2: $version in $cache"
	else
		(cd "$cache" && rm -f "${@:3}")
		declare_exception "$2: not tested, could not be had (scripts/install-cloud-tools.sh)"
	fi
}

mkdir -p "$cache"
declare_exception "gcloud: not tested, Debian has none; a program of the test's reads its variables, and Google's library for Python those of libraries"
bring azure "the Azure CLI and Google's library for Python" az python3
bring kubectl "kubectl" kubectl
