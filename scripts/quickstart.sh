#!/usr/bin/env bash
# Usage: scripts/quickstart.sh [--build-only] [--rebuild] [--from alpine|registry]
#
# From a fresh clone to a running spine on Debian 12 or newer: installs the host tools
# that are missing (apt-get, with sudo if you are not root), builds the spine, makes a
# persist disk and boots.
#
# On a terminal it leaves you at the spine's console. Without one (in CI, or with
# </dev/null) it boots, shows the serial console and how long each boot step took, powers
# off, and exits 0 only if the boot completed. A second run reuses what has not changed.
#
#   --build-only   stop after the build
#   --rebuild      build even if nothing has changed
#   --from SOURCE  see scripts/mkspine.sh; without it, the canonical build (alpine) where it can
#                  run, else registry, and it says why
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/inputs.sh
. "$LIB/inputs.sh"
# shellcheck source=lib/host-tools.sh
. "$LIB/host-tools.sh"

build_only=no
rebuild=no
source=""
while [ $# -gt 0 ]; do
    case $1 in
        --build-only) build_only=yes ;;
        --rebuild) rebuild=yes ;;
        --from) need_value "$@"; source="$2"; shift ;;
        --from=*) source="${1#*=}" ;;
        -h | --help) help_from "$0"; exit 0 ;;
        *) usage_error "unknown option $1." ;;
    esac
    shift
done

# build_if_changed: mkspine.sh leaves the hash of what it built from beside the image.
build_if_changed() {
    local why
    if [ "$rebuild" = no ] && [ -f "$TOP/vmlinuz" ] && [ -f "$BUILD/spine.img" ] &&
        [ "$(cat "$BUILD/spine.inputs" 2>/dev/null)" = "$(inputs_hash)" ]; then
        step "the spine is built and nothing has changed: reusing build/spine.img"
        return
    fi
    if [ -z "$source" ]; then
        source=alpine
        why="$("$TOP/scripts/mkspine.sh" --why-not-alpine)"
        if [ -n "$why" ]; then
            source=registry
            step "NOT THE CANONICAL BUILD: $why."
            note "Taking --from registry instead: Alpine's kernel, but Debian's userland and a glibc bay0 (docs/HANDOFF.md, deviations)."
        fi
    fi
    [ "$source" != registry ] || ensure_host_tools build
    step "building the spine (the first time takes a few minutes) ..."
    "$TOP/scripts/mkspine.sh" --from "$source"
}

make_persist() {
    if [ -f "$TOP/persist.img" ]; then
        step "persist.img is there: keeping it and what it holds"
    else
        step "making a persist disk ..."
        "$TOP/scripts/mkpersist.sh" >&2
    fi
}

# show_boot: no terminal, so show what a user would look at, and judge the boot.
show_boot() {
    local status=0
    step "booting the spine without a terminal: its serial console, then its boot steps"
    "$TOP/scripts/boot-qemu.sh" --persist "$TOP/persist.img" --timeout 240 --show-console \
        --exec 'bay0 status; echo; bay0 boot' >"$BUILD/quickstart.out" || status=$?
    echo
    cat "$BUILD/quickstart.out"
    [ "$status" -eq 0 ] || die "the spine did not boot through (status $status); its console is in build/console.log."
    step "the spine booted, reported and powered off. Run this in a terminal to use its console."
}

build_if_changed
[ "$build_only" = no ] || { step "built; boot it with scripts/boot-qemu.sh"; exit 0; }
ensure_host_tools vm
make_persist
if [ -t 0 ] && [ -t 1 ]; then
    step "booting; you will be at the spine's console"
    exec "$TOP/scripts/boot-qemu.sh" --persist "$TOP/persist.img"
fi
show_boot
