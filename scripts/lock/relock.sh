#!/usr/bin/env bash
# Usage: scripts/lock/relock.sh
#
# Resolves freeze.in and unit.in anew for the Python of the build root and
# rewrites freeze.txt and unit.txt: every wheel with its version and sha256.
# Then test.in, lint.in and tox.in, at the same versions, for whatever Python a
# developer has; that takes uv (pip install uv). ai-client.in likewise; ai.txt is kept
# by hand, because a new llama.cpp or model is chosen, measured and tried.
# Run it only to move to newer versions; read the diff before committing it.
set -euo pipefail
# shellcheck source=../lib/say.sh
. "$(dirname "$0")/../lib/say.sh"
# shellcheck source=../lib/wheels.sh
. "$TOP/scripts/lib/wheels.sh"

case "${1:-}" in
    "") ;;
    -h | --help) help_from "$0"; exit 0 ;;
    *) usage_error "unknown option $1." ;;
esac
need_command uv "install it with: pip install uv"

# lock_lines DIR: one pinned requirement for each wheel in DIR.
lock_lines() {
    local wheel base
    for wheel in "$1"/*.whl; do
        base="$(basename "$wheel" .whl)"
        printf '%s==%s \\\n    --hash=sha256:%s\n' \
            "$(echo "$base" | cut -d- -f1 | tr '_A-Z' '-a-z')" \
            "$(echo "$base" | cut -d- -f2)" \
            "$(sha256sum "$wheel" | cut -c1-64)"
    done
}

tmp="$(mktemp -d)"
trap 'rm -rf "$tmp"' EXIT
cd "$TOP/scripts/lock"

step "resolving freeze.in"
fetch_wheels "$tmp/freeze" -r freeze.in
{ echo "# Made by relock.sh from freeze.in: do not edit."; lock_lines "$tmp/freeze"; } > "$tmp/freeze.txt"

step "resolving unit.in"
fetch_wheels "$tmp/unit" -r unit.in -c <(sed -n 's/ \\$//p' "$tmp/freeze.txt")
for wheel in "$tmp"/freeze/*.whl; do rm -f "$tmp/unit/$(basename "$wheel")"; done
{ echo "# Made by relock.sh from unit.in: do not edit."; lock_lines "$tmp/unit"; } > "$tmp/unit.txt"

step "resolving ai-client.in"
fetch_wheels "$tmp/ai-client" -r ai-client.in
{ echo "# Made by relock.sh from ai-client.in: do not edit."; lock_lines "$tmp/ai-client"; } > "$tmp/ai-client.txt"

mv "$tmp/freeze.txt" "$tmp/unit.txt" "$tmp/ai-client.txt" .
for name in test lint tox; do
    step "resolving $name.in"
    uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        -c <(sed -n 's/ \\$//p' freeze.txt unit.txt) "$name.in" -o "$tmp/$name.txt" >/dev/null
    { echo "# Made by relock.sh from $name.in: do not edit."; cat "$tmp/$name.txt"; } > "$name.txt"
done
step "written: scripts/lock/*.txt"
