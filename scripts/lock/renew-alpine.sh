#!/usr/bin/env bash
# Usage: scripts/lock/renew-alpine.sh [--engine podman|docker] [--image NAME@sha256:DIGEST]
#
# Resolves alpine-packages.in against Alpine's repositories, in the pinned builder image and
# with its keys, and rewrites alpine-packages.txt: every package with its exact version,
# repository, sha256 and the sets it belongs to. Each file is fetched once, its signature is
# checked, and it stays in build/cache, which is what makes the pin last: Alpine's mirrors
# keep only the newest version of a package. Takes podman or docker and a network.
# Run it only to move to newer versions; read the diff before committing it.
# shellcheck disable=SC2034 # what is set here is used in the parts that are sourced
set -euo pipefail
LIB="$(cd "$(dirname "$0")/../lib" && pwd)"
# shellcheck source=../lib/say.sh
. "$LIB/say.sh"
for part in inputs source-alpine stages; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done
IMAGE="$ALPINE_BUILDER_IMAGE" ENGINE="${SPINE_ENGINE:-}" FLAVOR=vm container=yes unverified=yes offline=no fresh=no
LOCK_FILE="$LOCK/alpine-packages.txt" OUT="$LOCK/alpine-packages.txt"
while [ $# -gt 0 ]; do
    case $1 in
        --engine) need_value "$@"; ENGINE="$2"; shift ;;
        --image) need_value "$@"; IMAGE="$2"; shift ;;
        --output) need_value "$@"; OUT="$2"; shift ;; # for tests
        -h | --help) help_from "$0"; exit 0 ;;
        *) usage_error "unknown option $1." ;;
    esac
    shift
done
check_image "$IMAGE"
need_alpine
open_build
mkdir -p "$PACKAGE_CACHE"
cp "$LOCK_FILE" "$WORK/alpine-packages.txt"
INSIDE_ENV=(--env FLAVOR=vm --env RENEW=yes)
step "resolving alpine-packages.in ..."
inside "${SPINE_FETCH_NETWORK:-}" rw resolve || die "Alpine's repositories could not be resolved (see above); the lock is as it was."
cp "$WORK/resolved.txt" "$OUT.part"
mv "$OUT.part" "$OUT"
step "written: ${OUT#"$TOP"/}, $(grep -vc '^#' "$OUT") packages"
