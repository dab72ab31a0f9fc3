#!/usr/bin/env bash
# Internal: the last part of the canonical build, once alpine-inside.sh has bash and the rest
# of the locked build packages in place. The container itself is the build root here.
set -euo pipefail
LIB="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export SPINE_BUILD="$WORK/build"
# shellcheck source=say.sh
. "$LIB/say.sh"
PROG=mkspine.sh
for part in inputs buildroot freeze rootfs pack manifest stages; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done
export SOURCE=alpine
# shellcheck disable=SC2034 # the stages use it
ROOTFS="$WORK/rootfs"
mkdir -p "$BUILD"

# in_buildroot [--ro|--rw HOSTDIR AT]... -- CMD...: as buildroot.sh has it, but this is the build root already:
# the folders get their names there, and the environment is ours alone as well.
in_buildroot() {
    while [ "$1" != -- ]; do
        ln -sfn "$2" "$3"
        shift 3
    done
    shift
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TMPDIR=/tmp LANG=C.UTF-8 TZ=UTC \
        PYTHONPATH=/src PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 PYINSTALLER_CONFIG_DIR=/tmp/pyinstaller \
        SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" sh -c '[ ! -d /src ] || cd /src; exec "$@"' sh "$@"
}

# The environment that is frozen: the locked wheels, under Alpine's own Python.
for place in /opt/freeze /src /out /rootfs; do
    [ ! -e "$place" ] && [ ! -L "$place" ] || die "$place is there already, and the build needs that name: it is not touched. Build in a container."
done
trap 'rm -rf /opt/freeze; rm -f /src /out /rootfs' EXIT
{
    python3 -m venv /opt/freeze
    env -i PATH="$PATH" HOME=/tmp /opt/freeze/bin/python -m pip install --no-cache-dir --no-index --find-links "$WORK/wheels" \
        --require-hashes -r "$LOCK/freeze-musl.txt"
} >"$BUILD/wheels.log" 2>&1 || {
    tail -n 15 "$BUILD/wheels.log" >&2
    die "the pinned wheels do not install under Alpine's Python."
}
build_spine
