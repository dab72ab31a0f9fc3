#!/usr/bin/env bash
# Usage: scripts/quickstart.sh [--with-ai] [--gui] [--build-only] [--rebuild] [--from alpine|registry]
#
# From a fresh clone to a running spine on Debian 12 or newer: installs the host tools
# that are missing (apt-get, with sudo if you are not root), builds the spine, makes a
# persist disk and boots.
#
# On a terminal it leaves you at the spine's console. Without one (in CI, or with
# </dev/null) it boots, shows the serial console and how long each boot step took, powers
# off, and exits 0 only if the boot completed. A second run reuses what has not changed.
#
#   --with-ai      also build the AI tenant's image and the sample persona `ask`, put both on
#                  a persist disk of its own (persist-ai.img) and boot that, with more memory
#   --gui          boot with a screen: in a window, or where there is no display by VNC on a socket, and
#                  it says how to look. Without a terminal: a picture of it, build/screen.png. It builds
#                  the sample personas with windows, `terminal` and `counter`, puts their images on a
#                  persist disk of its own (persist-gui.img) and says how to start them
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
# shellcheck source=lib/image-build.sh
. "$LIB/image-build.sh"

with_ai=no
gui=no
build_only=no
rebuild=no
source=""
while [ $# -gt 0 ]; do
    case $1 in
        --with-ai) with_ai=yes ;;
        --gui) gui=yes ;;
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

# image_if_changed ai|ask|counter|terminal FILE: the archive of the AI tenant or of a sample persona.
image_if_changed() {
    local beside="$BUILD/image-$1.inputs"
    if [ "$rebuild" = no ] && [ -f "$2" ] && [ "$(cat "$beside" 2>/dev/null)" = "$(image_inputs "$1")" ]; then
        step "${2#"$TOP"/} is built and nothing has changed"
        return
    fi
    rm -f "$beside"
    "$TOP/scripts/mk$1.sh"
    image_inputs "$1" >"$beside"
}

# build_ai: both archives, and what that cost.
build_ai() {
    local from="$SECONDS"
    step "building the AI tenant (127 MB to download the first time) ..."
    image_if_changed ai "$BUILD/spine-ai.tar"
    image_if_changed ask "$BUILD/persona-ask.tar"
    step "the AI took $((SECONDS - from)) s, and $(du -cm "$BUILD"/{spine-ai,persona-ask}.tar "$CACHE"/wheels-ai-* "$CACHE"/ai-libraries-* | tail -n 1 | cut -f1) MB in build/"
}

# build_windows: the archives of the personas with windows.
build_windows() {
    step "building the personas with windows (70 MB to download the first time, 260 MB in build/) ..."
    image_if_changed counter "$BUILD/persona-counter.tar"
    image_if_changed terminal "$BUILD/persona-terminal.tar"
}

make_persist() {
    local images=()
    if [ -f "$disk" ]; then
        step "${disk#"$TOP"/} is there: keeping it and what it holds"
        return
    fi
    step "making a persist disk ..."
    [ "$with_ai" = no ] || images=(--image "$BUILD/spine-ai.tar" --image "$BUILD/persona-ask.tar")
    [ "$gui" = no ] || images+=(--image "$BUILD/persona-counter.tar" --image "$BUILD/persona-terminal.tar")
    "$TOP/scripts/mkpersist.sh" "${images[@]}" "$disk" >&2
}

# show_boot: no terminal, so show what a user would look at, and judge the boot.
show_boot() {
    local status=0 screen=() look='bay0 status; echo; bay0 boot'
    if [ "$gui" = yes ]; then
        screen=(--screenshot "$BUILD/screen.png")
        look="bay0 screen --wait 120; $look"
    fi
    step "booting the spine without a terminal: its serial console, then its boot steps"
    "$TOP/scripts/boot-qemu.sh" --persist "$disk" --mem "$mem" --timeout 300 --show-console "${screen[@]}" \
        --exec "$look" >"$BUILD/quickstart.out" || status=$?
    echo
    cat "$BUILD/quickstart.out"
    [ "$status" -eq 0 ] || die "the spine did not boot through (status $status); its console is in build/console.log."
    step "the spine booted, reported and powered off. Run this in a terminal to use its console."
}

# how_to_start NAME...: a line for the spine's console for each sample persona whose image is on the disk.
how_to_start() {
    local name
    for name in "$@"; do
        note "  bay0 image load /persist/images/persona-$name.tar; bay0 persona create $name; bay0 persona start $name"
    done
}

# say_what_next: what to type on the console, before it begins.
say_what_next() {
    step "booting; you will be at the spine's console"
    if [ "$with_ai" = yes ]; then
        note "to ask the AI, on the console:"
        how_to_start ask
        note "  bay0 persona shell ask"
    fi
    [ "$gui" = yes ] || return 0
    note "two personas with windows, on the console (the first time; later: bay0 persona start NAME):"
    how_to_start counter terminal
    note "  bay0 focus counter      # its window is on the screen; then bay0 focus terminal, or on the screen Super+Tab, Super+1, Super+2"
}

disk="$TOP/persist"
mem=1024
if [ "$with_ai" = yes ]; then
    disk+=-ai
    mem=2048
fi
[ "$gui" = no ] || disk+=-gui
disk+=.img
build_if_changed
[ "$with_ai$gui" = nono ] || ensure_host_tools build
[ "$with_ai" = no ] || build_ai
[ "$gui" = no ] || build_windows
[ "$build_only" = no ] || { step "built; boot it with scripts/boot-qemu.sh"; exit 0; }
ensure_host_tools vm
make_persist
if [ -t 0 ] && [ -t 1 ]; then
    say_what_next
    screen=()
    [ "$gui" = no ] || screen=(--gui)
    exec "$TOP/scripts/boot-qemu.sh" --persist "$disk" --mem "$mem" "${screen[@]}"
fi
show_boot
