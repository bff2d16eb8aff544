#!/usr/bin/env bash
# Builds the pinned development tools into the git-ignored .cache/tools. A tool
# of the right version, built by this Go, is kept: then no network is needed.
#
#   scripts/install-tools.sh [golangci-lint|govulncheck ...]      default: all
set -euo pipefail

repo=$(cd "$(dirname "$0")/.." && pwd -P)
tools=$repo/.cache/tools
mkdir -p "$tools"

# A tool is named by its module, its package in it and its version. staticcheck
# runs as part of golangci-lint.
pin() {
	case "$1" in
	golangci-lint) echo github.com/golangci/golangci-lint/v2 cmd/golangci-lint v2.15.0 ;;
	govulncheck) echo golang.org/x/vuln cmd/govulncheck v1.9.0 ;;
	*) echo "tools: $1 is not known" >&2; exit 2 ;;
	esac
}

# present asks the binary itself: "path: go1.26.8" and "mod <module> <version>".
present() {
	local binary=$1 module=$2 version=$3 built
	[ -x "$binary" ] || return 1
	built=$(go version -m "$binary" 2>/dev/null) || return 1
	[[ $built == *": $(go env GOVERSION)"* ]] && grep -qP "\tmod\t\Q$module\E\t\Q$version\E(\t|$)" <<<"$built"
}

[ $# -gt 0 ] || set -- golangci-lint govulncheck
for tool in "$@"; do
	read -r module package version <<<"$(pin "$tool")"
	if ! present "$tools/$tool" "$module" "$version"; then
		echo "tools: building $tool $version (golangci-lint takes two minutes, once)" >&2
		GOBIN=$tools GOFLAGS= go install "$module/$package@$version"
	fi
done
