# shellcheck shell=bash
# Names shared by the build stages: where things go, and what the bytes depend on.
# shellcheck disable=SC2034  # used by the scripts that source this file

# SPINE_BUILD=DIR builds somewhere else than in the checkout, vmlinuz included.
BUILD="${SPINE_BUILD:-$TOP/build}"
VMLINUZ="${SPINE_BUILD:-$TOP}/vmlinuz"
CACHE="$BUILD/cache"
LOCK="$TOP/scripts/lock"
ROOTFS="$BUILD/rootfs"
SUITE=trixie

# Names inside EROFS and in /etc/machine-like places must not vary between two builds.
EROFS_UUID=5b1fe5b1-5e00-4a1b-8b0b-0a15e5b1e000

# The canonical build runs in this image: mkspine.sh has its digest.
ALPINE_BUILDER_IMAGE="$(sed -n 's/^ALPINE_BUILDER_IMAGE="\(.*\)"$/\1/p' "$TOP/scripts/mkspine.sh")"

# names_in FILE: the first word of each line that is not a comment.
names_in() { sed -e 's/#.*//' "$1" | awk 'NF { print $1 }'; }

# source_date: SOURCE_DATE_EPOCH, else the last commit's time, else a constant (1 Jan 2026).
source_date() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        case $SOURCE_DATE_EPOCH in
            *[!0-9]*) die "SOURCE_DATE_EPOCH must be a number of seconds, not '$SOURCE_DATE_EPOCH'." ;;
        esac
        echo "$SOURCE_DATE_EPOCH"
    else
        # safe.directory: under sudo the checkout belongs to somebody else.
        git -c safe.directory="$TOP" -C "$TOP" log -1 --format=%ct 2>/dev/null || echo 1767225600
    fi
}

# inputs_hash: over names, modes and contents of all that goes into the image. The last
# commit's time is left out: it alone changes nothing a user would want rebuilt.
inputs_hash() {
    (
        cd "$TOP" || exit
        find bay0 personas scripts pyproject.toml \
            \( -name __pycache__ -o -path scripts/bench -o -path scripts/test.sh \) -prune -o -type f -printf '%m %p\0' |
            LC_ALL=C sort -z | while IFS= read -r -d '' line; do
                printf '%s %s\n' "$line" "$(sha256sum <"${line#* }")"
            done | sha256sum | cut -c1-64
    )
}
