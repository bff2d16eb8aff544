#!/bin/bash
# Prints how large the program is, how many modules are in it, and what each engine adds: the program is
# built once more without it.
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
list=engine/builtin/builtin.go

build() { # overlay
  CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -overlay "$1" -o "$tmp/scaivault" ./cmd/scaivault
  stat -c %s "$tmp/scaivault"
}
modules() { go version -m "$tmp/scaivault" | grep -c '^	dep' || true; }

# The node reads what the host gives to the engine for AWS: of the package that much stays, and does nothing.
leave_host() {
  printf 'package aws\n\ntype Host struct{}\n\nfunc NewHost(string, []string, func(string) string) (Host, error) { return Host{}, nil }\n' > "$tmp/host.go"
  for file in engine/aws/*.go; do
    case $file in
    *_test.go) ;;
    */host.go) printf ', "%s": "%s"' "$PWD/$file" "$tmp/host.go" ;;
    *) printf ', "%s": ""' "$PWD/$file" ;;
    esac
  done
}

echo '{}' > "$tmp/none.json"
whole=$(build "$tmp/none.json")
all=$(modules)
printf '%-12s %10s bytes  %3s modules\n' scaivault "$whole" "$all"
for engine in $(sed -n 's/^\t\t\([a-z]*\)\.Type{.*/\1/p' "$list"); do
  sed "/^\t\t$engine\.Type{/d" "$list" > "$tmp/builtin.go"
  if ! grep -q "[^a-z/]$engine\." "$tmp/builtin.go"; then
    sed -i "/engine\/$engine\"/d" "$tmp/builtin.go"
  fi
  { printf '{"Replace": {"%s": "%s"' "$PWD/$list" "$tmp/builtin.go"
    if [ $engine = aws ]; then leave_host; fi
    printf '}}'; } > "$tmp/overlay.json"
  without=$(build "$tmp/overlay.json")
  printf '%-12s %10s bytes  %3s modules more\n' "$engine" $((whole - without)) $((all - $(modules)))
done
