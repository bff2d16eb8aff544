#!/usr/bin/env bash
# Brings the MariaDB and the MySQL that the tests run against.
#
#   scripts/install-mysql.sh [EXCEPTIONS]
#
# What is in PATH is kept. Else Debian's packages are unpacked, with all that they
# need, into the git-ignored .cache/mysql/<name>/root and run with their own
# libraries: this needs no root, starts nothing and leaves the machine's packages
# and apt's own state alone. MySQL is in Debian's sid only. Beside the server lies
# an empty data folder, which tests copy. Safe to run again; needs no network once
# both are there.
#
# MariaDB is needed. A MySQL that cannot be had is a declared exception: its line
# goes into the file EXCEPTIONS, and the tests leave it out.
#
# Environment: SCAIVAULT_TEST_MARIADB_BIN and SCAIVAULT_TEST_MYSQL_BIN name folders
# with a mariadbd and a mysqld to use instead.
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
. "$repo/scripts/debian.sh"
cache=$repo/.cache/mysql
exceptions=${1:-/dev/stderr}

say() { printf '%s\n' "$*" >&2; }

declare -A daemon=([mariadb]=mariadbd [mysql]=mysqld)
declare -A suite=([mariadb]=bookworm [mysql]=sid)
declare -A packages=([mariadb]="mariadb-server-core mariadb-client-core" [mysql]=mysql-server-core)

# installed prints the server that the environment names or that is in PATH. A
# mysqld in PATH may be a MariaDB.
installed() {
	local name=$1 override found
	override=SCAIVAULT_TEST_$(tr '[:lower:]' '[:upper:]' <<<"$name")_BIN
	if [ -n "${!override:-}" ]; then
		[ -x "${!override}/${daemon[$name]}" ] || { say "$name: $override=${!override} holds no ${daemon[$name]}"; exit 1; }
		echo "${!override}/${daemon[$name]}"
		return
	fi
	found=$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "${daemon[$name]}") || return 1
	case "$name-$("$found" --no-defaults --version 2>/dev/null)" in
	mysql-*MariaDB*) return 1 ;;
	*) echo "$found" ;;
	esac
}

# unpack brings a server and all that it needs.
unpack() (
	name=$1
	work=$(mktemp -d "$cache/.$name.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	say "$name: downloading from Debian ${suite[$name]}"
	# shellcheck disable=SC2086 # several packages
	debian_unpack "$work" whole "${suite[$name]}" ${packages[$name]} || exit 1
	rm -rf "${cache:?}/$name/root"
	mkdir -p "$cache/$name"
	mv "$work/root" "$cache/$name/root"
)

# wrap writes programs that run a server, and the client of MariaDB, with the
# libraries that they were unpacked with.
wrap() {
	local name=$1 root=$cache/$1/root loader libraries program
	loader=$(echo "$root"/usr/lib64/ld-linux-*.so.* "$root"/lib64/ld-linux-*.so.* "$root"/lib/ld-linux-*.so.* | tr ' ' '\n' | while read -r f; do [ -e "$f" ] && echo "$f" && break; done)
	libraries=$(printf '%s:' "$root"/usr/lib/*-linux-gnu "$root"/lib/*-linux-gnu)
	mkdir -p "$cache/$name/bin"
	cat >"$cache/$name/bin/server" <<-END
		#!/bin/sh
		exec "$loader" --library-path "$libraries" "$root/usr/sbin/${daemon[$name]}" --no-defaults --basedir="$root/usr" --lc-messages-dir="$root/usr/share/mysql" --character-sets-dir="$root/usr/share/mysql/charsets" "\$@"
	END
	chmod +x "$cache/$name/bin/server"
	for program in "$root"/usr/bin/mariadb; do
		[ -e "$program" ] || continue
		printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" --no-defaults --plugin-dir="%s" "$@"\n' "$loader" "$libraries" "$program" \
			"$(echo "$root"/usr/lib/*-linux-gnu/libmariadb3/plugin)" >"$cache/$name/bin/mariadb"
		chmod +x "$cache/$name/bin/mariadb"
	done
}

# template makes the empty data folder.
template() (
	name=$1
	rm -rf "$cache/$name/data.new"
	log=$cache/$name/template.log
	if [ "$name" = mysql ]; then
		"$cache/mysql/bin/server" --initialize-insecure --user="$(id -un)" --datadir="$cache/mysql/data.new" --innodb-redo-log-capacity=8M --secure-file-priv= >"$log" 2>&1
	else
		share=/usr/share/mysql
		[ ! -d "$cache/mariadb/root" ] || share=$cache/mariadb/root/usr/share/mysql
		mkdir -p "$cache/mariadb/data.new"
		{
			printf '%s;\n' 'CREATE DATABASE mysql' 'USE mysql' 'SET @auth_root_socket = NULL' 'SET @skip_auth_anonymous = 1'
			cat "$share/mysql_system_tables.sql" "$share/mysql_performance_tables.sql"
			sed '/@current_hostname/d' "$share/mysql_system_tables_data.sql"
			cat "$share/mysql_sys_schema.sql"
		} | "$cache/mariadb/bin/server" --bootstrap --user="$(id -un)" --datadir="$cache/mariadb/data.new" --innodb-log-file-size=8M >"$log" 2>&1
	fi || { say "$name: its data folder cannot be made, see $log"; exit 1; }
	rm -rf "$cache/$name/data"
	mv "$cache/$name/data.new" "$cache/$name/data"
)

# bring sees to it that a server and its data folder are there.
bring() {
	local name=$1 found
	mkdir -p "$cache/$name/bin"
	if found=$(installed "$name"); then
		printf '#!/bin/sh\nexec "%s" --no-defaults "$@"\n' "$found" >"$cache/$name/bin/server"
		chmod +x "$cache/$name/bin/server"
	else
		[ -d "$cache/$name/root" ] || unpack "$name" || return 1
		wrap "$name"
	fi
	local version
	version=$("$cache/$name/bin/server" --version 2>/dev/null) || { say "$name: it does not run on this machine"; return 1; }
	version=$(sed 's/.* Ver \([^ ]*\).*/\1/' <<<"$version")
	if [ "$(cat "$cache/$name/version" 2>/dev/null)" != "$version" ] || [ ! -d "$cache/$name/data" ]; then
		template "$name" || return 1
		echo "$version" >"$cache/$name/version"
	fi
	say "$name: $version"
}

mkdir -p "$cache"
bring mariadb || { say "mariadb: it could not be had: install mariadb-server-core 10.6 or later, or set SCAIVAULT_TEST_MARIADB_BIN"; exit 1; }
rm -f "$cache/no-mysql"
if ! bring mysql; then
	: >"$cache/no-mysql"
	echo "MySQL is not tested: it could not be had (scripts/install-mysql.sh says why)" >>"$exceptions"
fi
