# shellcheck shell=bash
# Fetching wheels for the build root's Python with the host's pip.

# fetch_wheels DIR PIP-ARGS...: wheels for CPython 3.13 on glibc x86-64, and no source packages.
fetch_wheels() {
    local dir="$1"
    shift
    mkdir -p "$dir"
    # pip's words are only worth reading when it fails.
    python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir \
        --only-binary=:all: --implementation cp --python-version 3.13 \
        --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64 \
        --dest "$dir" "$@" 2>"$dir/.pip.log" || {
        tail -n 15 "$dir/.pip.log" >&2
        die "pip could not download the pinned wheels: check that its package index is reachable, then run this again."
    }
    rm -f "$dir/.pip.log"
}

# fetch_locked NAME LOCKFILE...: the wheels of lock files, in build/cache; prints the directory.
fetch_locked() {
    local name="$1" dir lock args=()
    shift
    dir="$CACHE/wheels-$name-$(cat "$@" | sha256sum | cut -c1-12)"
    if [ ! -d "$dir" ]; then
        for lock in "$@"; do args+=(-r "$lock"); done
        rm -rf "$dir.part"
        fetch_wheels "$dir.part" --require-hashes --no-deps "${args[@]}" >&2
        mv "$dir.part" "$dir"
    fi
    echo "$dir"
}
