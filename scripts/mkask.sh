#!/usr/bin/env bash
# Usage: scripts/mkask.sh [-o FILE]
#
# Builds the image of the sample persona `ask`, localhost/ask:1, into an archive (default
# build/persona-ask.tar): the spine's Alpine base image, Alpine's curl above it, and the
# script personas/ask/ask, which streams an answer of the AI tenant.
#
#   -o FILE   the archive; an older archive there is replaced, any other file is not
#
# All of it comes out of the Alpine wheel that the spine is built from, checked by apk's
# SHA-1 of each file: no network, no podman or docker. The same inputs give the same bytes;
# times come from SOURCE_DATE_EPOCH, by default the last commit's, as in the spine itself.
#
# Then: scripts/mkpersist.sh --image build/spine-ai.tar --image build/persona-ask.tar
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
for part in inputs wheels source-registry host-tools images image-build; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done

IMAGE=localhost/ask:1
# curl as Alpine has it, and what it is linked to beyond the base image.
PACKAGES=(curl libcurl brotli-libs c-ares libidn2 libpsl libunistring nghttp2-libs zstd-libs)
out="$BUILD/persona-ask.tar"
image_options "$@"
become_root "$TOP/scripts/mkask.sh" "$@"

begin_image
step "building $IMAGE"
ensure_alpine
mkdir -p "$WORK/files/usr/local/bin"
install -m 755 "$TOP/personas/ask/ask" "$WORK/files/usr/local/bin/ask"
# The base image's layer as mkspine.sh makes it at this commit: podman on the spine then has it already.
"$LIB/mkimage.py" --name "$IMAGE" --epoch "$(source_date)" --root "$(alpine_dir)/root" --add "$WORK/files" \
    "${PACKAGES[@]/#/--with=}" --out "$WORK/image.tar" || die "the image could not be made of the Alpine root."
publish_image "$out" "$IMAGE"
