#!/usr/bin/env bash
# Brings what the blocks of the documentation use, which the tests run as
# written: curl, jq, python3. What is there is kept; the rest is installed from
# the distribution as root, else it says what to run.
set -euo pipefail

missing=()
for tool in curl jq python3; do
	command -v "$tool" >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	echo "documentation: ${missing[*]} missing; run: sudo apt-get install ${missing[*]}" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -q --no-install-recommends "${missing[@]}" ||
	{ apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; }
