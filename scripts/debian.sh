# Sourced by the scripts that bring servers from Debian: packages are unpacked, not
# installed. It needs no root, starts nothing, and leaves the machine's packages and
# apt's own state alone; apt verifies the signatures, as always.

# debian_unpack WORK whole|alone SUITES PACKAGE… unpacks packages of Debian's suites
# (several in one word), with all that they need or alone, into WORK/root. WORK is an
# empty folder, which the caller removes. It fails with the reason on standard error.
debian_unpack() {
	local work=$1 how=$2 suites=$3 suite package
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror=http://deb.debian.org/debian
	shift 3
	if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
		echo "there is no apt-get here to download with" >&2
		return 1
	fi
	[ -r "$keyring" ] || { echo "there is no $keyring to verify packages by" >&2; return 1; }
	mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
	for suite in $suites; do
		case $suite in
		*-security) echo "deb [signed-by=$keyring] $mirror-security $suite main" ;;
		*) echo "deb [signed-by=$keyring] $mirror $suite main" ;;
		esac
	done >"$work/apt/sources.list"
	local apt=(apt-get -qq -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/apt/lists"
		-o Dir::State::status=/dev/null -o Dir::Cache="$work/apt" -o APT::Sandbox::User=root -o Debug::NoLocking=1)
	"${apt[@]}" update >&2 || return 1
	case $how in
	whole) "${apt[@]}" install -y --no-install-recommends --download-only "$@" >&2 || return 1 ;;
	alone) (cd "$work/apt/archives" && "${apt[@]}" download "$@" >&2) || return 1 ;;
	esac
	for package in "$work"/apt/archives/*.deb; do
		dpkg-deb -x "$package" "$work/root" || return 1
	done
	rm -rf "$work"/apt "$work"/root/usr/share/{doc,man,locale}
}
