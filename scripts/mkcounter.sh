#!/usr/bin/env bash
# Usage: scripts/mkcounter.sh [-o FILE]
#
# Builds the image of the sample persona `counter`, localhost/counter:1, into an archive
# (default build/persona-counter.tar): one program, personas/counter/counter.c, which shows
# a number in a window and counts on. FROM scratch, with its C library linked into it.
#
#   -o FILE   the archive; an older archive there is replaced, any other file is not
#
# Compiler and C library are Debian's, from the signed release, kept in build/cache (55 MB to
# download once). The same inputs give the same bytes. Needs root for its chroot and asks
# sudo for it.
#
# Then: scripts/mkpersist.sh --image build/persona-counter.tar
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
for part in inputs buildroot host-tools images image-build; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done

IMAGE=localhost/counter:1
out="$BUILD/persona-counter.tar"
image_options "$@"
become_root "$TOP/scripts/mkcounter.sh" "$@"
need_command mmdebstrap "install Debian's mmdebstrap, or let scripts/quickstart.sh do it."

# compile TREE: counter.c to WORK/c/counter, by the tree's compiler. The tree itself is not written to.
compile() {
    mkdir "$WORK/c"
    cp "$TOP/personas/counter/counter.c" "$WORK/c/"
    # shellcheck disable=SC2016  # the inner shell's arguments
    unshare --mount --propagation private -- bash -euc '
        mount --bind "$1" "$2/tmp"
        exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C chroot "$2" x86_64-linux-gnu-gcc -std=c11 -O2 -Wall -Wextra -Werror \
            -specs /usr/lib/x86_64-linux-musl/musl-gcc.specs -static -s -Wl,--build-id=none -o /tmp/counter /tmp/counter.c' \
        bash "$WORK/c" "$1" || die "counter.c does not compile."
}

begin_image
step "building $IMAGE"
compile "$(debian_tree counter-tools "$LOCK/counter-packages.txt")"
mkdir -p "$WORK/root"/{dev,proc,sys,run,tmp,etc,usr/bin}
install -m 755 "$WORK/c/counter" "$WORK/root/usr/bin/counter"
printf 'root:x:0:0::/:/nonexistent\n' >"$WORK/root/etc/passwd"
"$WORK/root/usr/bin/counter" --help >/dev/null || die "the program that was made does not run."
config='{"Cmd": ["counter"], "Env": ["PATH=/usr/bin"], "WorkingDir": "/"}'
python3 "$LIB/packtree.py" --name "$IMAGE" --epoch "$IMAGE_EPOCH" --config "$config" --out "$WORK/image.tar" "counter=$WORK/root" ||
    die "the image could not be packed."
publish_image "$out" "$IMAGE"
