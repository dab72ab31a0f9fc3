#!/usr/bin/env bash
# Usage: scripts/mkaiclient.sh [-o FILE]
#
# Builds localhost/ai-client:1 into an archive (default build/ai-client.tar): the real
# `openai` Python library and tests/vm/ai_client.py, which asks the AI over a socket, in one
# piece and streamed. For the tests of the full tier; nobody needs it on a spine.
#
#   -o FILE   the archive; an older archive there is replaced, any other file is not
#
# The wheels are pinned with hashes (scripts/lock/ai-client.txt). The same inputs give the
# same bytes. Needs root for its chroot and asks sudo for it.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
for part in inputs wheels buildroot host-tools images image-build; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done

IMAGE=localhost/ai-client:1
out="$BUILD/ai-client.tar"
image_options "$@"
become_root "$TOP/scripts/mkaiclient.sh" "$@"
need_command mmdebstrap "install Debian's mmdebstrap, or let scripts/quickstart.sh do it."

begin_image
step "building $IMAGE"
ensure_buildroot
libraries="$(debian_tree ai-libraries "$LOCK/ai-packages.txt")"
wheels="$(fetch_locked ai-client "$LOCK/ai-client.txt")"
mkdir -p "$WORK"/{src/site,out,root/{dev,proc,sys,tmp,etc,run/ai,usr/lib}}
for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$WORK/src/site"; done
cp "$TOP/tests/vm/ai_client.py" "$WORK/src/client.py"
step "freezing the client ..."
freeze_for_image --specpath /tmp --paths /src/site --name client --strip --noupx --collect-submodules httpcore2 /src/client.py
mv "$WORK/out/client" "$WORK/root/usr/lib/client"
cp -L "$libraries/usr/lib/x86_64-linux-gnu/libz.so.1" "$WORK/root/usr/lib/" # its start-up program needs it before it has a path of its own
printf 'root:x:0:0::/:/nonexistent\n' >"$WORK/root/etc/passwd"
python3 "$LIB/closure.py" "$libraries" "$WORK/root" || die "the client's libraries are not complete."
config='{"Entrypoint": ["/usr/lib/client/client"], "Env": ["PATH=/usr/bin"], "WorkingDir": "/"}'
python3 "$LIB/packtree.py" --name "$IMAGE" --epoch "$IMAGE_EPOCH" --config "$config" --out "$WORK/image.tar" "openai=$WORK/root" ||
    die "the image could not be packed."
publish_image "$out" "$IMAGE"
