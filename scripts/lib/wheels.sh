# shellcheck shell=bash
# Fetching wheels for the build root's Python with the host's pip.

# need_network WHAT: under --offline, what is about to be fetched is named instead.
need_network() { [ "${offline:-no}" = no ] || die "--offline, and $1 is not in build/cache: build once without --offline."; }

# fetch_wheels DIR LIBC PIP-ARGS...: wheels for x86-64 on glibc (CPython 3.13, as in the build root) or musl (Alpine's
# Python; all that are locked take any version), and no source packages.
fetch_wheels() {
    local dir="$1" platforms=(--platform musllinux_1_1_x86_64 --platform musllinux_1_2_x86_64)
    [ "$2" = musl ] || platforms=(--platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64)
    shift 2
    mkdir -p "$dir"
    # pip's words are only worth reading when it fails.
    python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir \
        --only-binary=:all: --implementation cp --python-version 3.13 "${platforms[@]}" \
        --dest "$dir" "$@" 2>"$dir/.pip.log" || {
        tail -n 15 "$dir/.pip.log" >&2
        die "pip could not download the pinned wheels: check that its package index is reachable, then run this again."
    }
    rm -f "$dir/.pip.log"
}

# fetch_locked NAME LOCKFILE...: the wheels of lock files, in build/cache; prints the directory.
fetch_locked() {
    local name="$1" dir lock libc=glibc args=()
    shift
    case $name in *-musl) libc=musl ;; esac
    dir="$CACHE/wheels-$name-$(cat "$@" | sha256sum | cut -c1-12)"
    if [ ! -d "$dir" ]; then
        for lock in "$@"; do args+=(-r "$lock"); done
        need_network "a wheel of $(basename "$1")"
        rm -rf "$dir.part"
        fetch_wheels "$dir.part" "$libc" --require-hashes --no-deps "${args[@]}" >&2
        mv "$dir.part" "$dir"
    fi
    echo "$dir"
}
