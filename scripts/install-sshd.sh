#!/usr/bin/env bash
# Brings the OpenSSH that the tests run: sshd, ssh, ssh-keygen, ssh-agent,
# ssh-add, and sshpass.
#
#   scripts/install-sshd.sh [EXCEPTIONS]
#
# What is in PATH is kept. Else Debian's packages are unpacked into the
# git-ignored .cache/ssh, with libraries that they alone see, which needs no root, starts nothing and leaves the
# machine's packages and apt's own state alone. Safe to run again; needs no
# network once all are there.
#
# The tests give sshd users and PAM lines of its own in a mount namespace, for
# which they must be root. Where they are not, that is a declared exception: its
# line goes into the file EXCEPTIONS, and the tests leave sshd out.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
. "$repo/scripts/debian.sh"
cache=$repo/.cache/ssh
exceptions=${1:-/dev/stderr}

suite=bookworm
programs="sshd ssh ssh-keygen ssh-agent ssh-add sshpass"
packages="openssh-server openssh-client sshpass"
# Neither PAM nor what else every Debian has: sshd must use the machine's own.
libraries="libwrap0 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libkeyutils1 libcom-err2 libssl3 libedit2 libbsd0 libmd0 libfido2-1 libcbor0.8"

say() { printf 'sshd: %s\n' "$*" >&2; }

# present tells whether every program can be run from somewhere.
present() {
	local program
	for program in $programs; do
		[ -x "$cache/libexec/$program" ] || PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$program" >/dev/null || return 1
	done
}

unpack() (
	work=$(mktemp -d "$cache/.new.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	cd "$work"
	say "downloading (about 6 MB)"
	# shellcheck disable=SC2086 # several packages
	debian_unpack "$work" alone "$suite $suite-security" $packages $libraries || exit 1
	mkdir -p bin lib libexec
	for program in $programs; do
		cp "$(find root/usr/bin root/usr/sbin -name "$program" -type f)" libexec/
		cat >"bin/$program" <<-END
			#!/bin/sh
			dir=\$(dirname "\$(readlink -f "\$0")")/..
			LD_LIBRARY_PATH=\$dir/lib exec "\$dir/libexec/$program" "\$@"
		END
		chmod +x "bin/$program"
	done
	find root -path '*-linux-gnu*' -name '*.so*' -exec cp -a {} lib/ \;
	[[ $(bin/sshd -h 2>&1) == *OpenSSH_* ]] || { say "Debian's build does not run on this machine"; exit 1; }
	rm -rf "${cache:?}"/{bin,lib,libexec}
	mv bin lib libexec "$cache/"
)

mkdir -p "$cache"
rm -f "$cache/no-sshd"
if ! present; then
	unpack || { say "it could not be downloaded: install $packages"; exit 1; }
fi
say "$(PATH=$cache/bin:$PATH ssh -V 2>&1)"
if ! unshare --mount true 2>/dev/null; then
	: >"$cache/no-sshd"
	echo "sshd is not tested: its users and PAM lines need a mount namespace, and so root (scripts/install-sshd.sh)" >>"$exceptions"
fi
