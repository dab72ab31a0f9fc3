#!/usr/bin/env bash
# Usage: scripts/mkpersona.sh [OPTION...] CONTEXT_DIR [-- BUILD ARGS]
#
# Builds CONTEXT_DIR/Containerfile (or Dockerfile) into an image archive for the spine,
# with podman or docker on this machine. `FROM localhost/alpine:3.23` needs no network:
# the spine's own base image is loaded from build/rootfs first.
#
#   --tag localhost/NAME:TAG  the image's name, as a manifest says it (default: the
#                             directory's name, and the tag 1)
#   -o FILE                   the archive (default ./NAME.tar); an older archive there
#                             is replaced, any other file is not
#   --network MODE            network of RUN lines: none (default), host, or what the
#                             engine offers; with none the build depends on files alone
#   --engine podman|docker    default: podman where it is, else docker
#
# Whatever follows -- goes to the engine's build unchanged.
#
# Then: scripts/mkpersist.sh --image FILE puts it on a new persist disk;
# `bay0 image load /persist/images/NAME.tar` on the spine brings it in.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/images.sh
. "$LIB/images.sh"

tag=""
out=""
network=none
engine=""
context=""
while [ $# -gt 0 ]; do
    case $1 in
        --tag) need_value "$@"; tag="$2"; shift ;;
        --tag=*) tag="${1#*=}" ;;
        -o | --output) need_value "$@"; out="$2"; shift ;;
        --output=*) out="${1#*=}" ;;
        --network) need_value "$@"; network="$2"; shift ;;
        --network=*) network="${1#*=}" ;;
        --engine) need_value "$@"; engine="$2"; shift ;;
        --engine=*) engine="${1#*=}" ;;
        -h | --help) help_from "$0"; exit 0 ;;
        --) shift; break ;;
        -*) usage_error "unknown option $1." ;;
        *) [ -z "$context" ] || usage_error "only one CONTEXT_DIR, not '$context' and '$1'."; context="$1" ;;
    esac
    shift
done
[ -n "$context" ] || usage_error "say which directory to build."
[ -d "$context" ] || die "there is no directory $context."
recipe="$context/Containerfile"
[ -f "$recipe" ] || recipe="$context/Dockerfile"
[ -f "$recipe" ] || die "$context has no Containerfile: write one that starts with FROM localhost/alpine:3.23."

# The rules of bay0/personas/rules.py: what is built here must be a name that a manifest may hold.
component='[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*'
if [ -z "$tag" ]; then
    name="$(basename "$(cd "$context" && pwd)")"
    tag="localhost/$name:1"
fi
[[ $tag =~ ^localhost(/$component)+:[a-z0-9_][a-z0-9._-]{0,127}$ ]] ||
    usage_error "an image is called localhost/NAME:TAG in lower case, not '$tag'; choose with --tag."
name="${tag##*/}"
out="${out:-${name%%:*}.tar}"
[ -d "$(dirname "$out")" ] || die "the directory $(dirname "$out") does not exist: make it first."
[ ! -e "$out" ] || is_image_archive "$out" || die "$out exists and is no image archive: name another file with -o."

# find_engine: the first of the two that is installed.
find_engine() {
    local candidate
    for candidate in podman docker; do
        if command -v "$candidate" >/dev/null; then echo "$candidate"; return; fi
    done
    die "building an image needs podman or docker on this machine: install one (Debian: apt-get install podman)."
}

[ -n "$engine" ] || engine="$(find_engine)"
case $engine in
    podman | docker) need_command "$engine" "install it, or choose the other one with --engine." ;;
    *) usage_error "--engine takes podman or docker, not '$engine'." ;;
esac

# load_base: the image that the spine brings along, unless the engine has exactly this one.
load_base() {
    local archive="$TOP/build/rootfs/usr/share/spine-images/alpine-3.23.tar"
    if [ -f "$archive" ]; then
        "$engine" load -q -i "$archive" >/dev/null || die "$engine could not load the spine's base image, see its message above."
    elif grep -qi '^ *FROM .*localhost/alpine:3\.23' "$recipe"; then
        "$engine" image inspect localhost/alpine:3.23 >/dev/null 2>&1 ||
            die "the base image localhost/alpine:3.23 is not here: build the spine once (scripts/mkspine.sh), it makes it."
    fi
}

work="$(mktemp -d "$(dirname "$out")/.mkpersona.XXXXXX")" || die "cannot write to $(dirname "$out")."
trap 'rm -rf "$work"' EXIT
step "building $tag with $engine ..."
load_base
arguments=(--network "$network" -t "$tag" -f "$recipe")
# podman would ask registries for a base that is not here; docker looks for itself first.
[ "$engine" = docker ] || arguments+=(--pull=never --format docker)
"$engine" build "${arguments[@]}" "$@" "$context" >&2 || die "the image could not be built, see $engine's message above."
save=(save)
[ "$engine" = docker ] || save+=(-q --format docker-archive)
"$engine" "${save[@]}" -o "$work/image.tar" "$tag" || die "$engine could not save $tag, see its message above."
is_image_archive "$work/image.tar" || die "$engine saved something that is no image archive."
mv -f "$work/image.tar" "$out"
echo "$PROG: made $out ($(($(stat -c %s "$out") / 1000)) KB, $tag). Put it on a disk: scripts/mkpersist.sh --image $out"
