#!/usr/bin/env bash
# Usage: scripts/mkterminal.sh [-o FILE]
#
# Builds the image of the sample persona `terminal`, localhost/terminal:1, into an archive
# (default build/persona-terminal.tar): the terminal foot in a window of its own, with
# busybox's shell in it. FROM scratch: these two, the libraries they are linked to, one
# font, one locale.
#
#   -o FILE   the archive; an older archive there is replaced, any other file is not
#
# All of it is Debian's, from the signed release, kept in build/cache (13 MB to download
# once). The same inputs give the same bytes. Needs root for its chroot and asks sudo for it.
#
# Then: scripts/mkpersist.sh --image build/persona-terminal.tar
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
for part in inputs buildroot host-tools images image-build; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done

IMAGE=localhost/terminal:1
# Of Debian's packages, beside the programs' libraries. Without the locale foot does not start; the font is all its letters.
FILES=(usr/bin/{foot,busybox} usr/lib/locale/C.utf8 usr/share/fonts/truetype/dejavu/DejaVuSansMono{,-Bold}.ttf usr/share/terminfo/f/foot)
out="$BUILD/persona-terminal.tar"
image_options "$@"
become_root "$TOP/scripts/mkterminal.sh" "$@"
need_command mmdebstrap "install Debian's mmdebstrap, or let scripts/quickstart.sh do it."

# make_root TREE: the image's root in WORK/root, out of a tree of Debian's packages.
make_root() {
    local root="$WORK/root" applet
    mkdir -p "$root"/{dev,proc,sys,run,tmp,root,home,etc/{xdg/foot,fonts},usr/{bin,lib}}
    ln -s usr/bin "$root/bin"
    ln -s usr/lib "$root/lib"
    (cd "$1" && cp -a --parents "${FILES[@]}" "$root") || die "Debian's packages do not hold what the terminal is made of."
    chroot "$1" busybox --list >"$WORK/applets" || die "Debian's busybox does not run."
    while read -r applet; do [ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"; done <"$WORK/applets"
    install -m 644 "$TOP/personas/terminal/foot.ini" "$root/etc/xdg/foot/foot.ini"
    install -m 644 "$TOP/personas/terminal/fonts.conf" "$root/etc/fonts/fonts.conf"
    install -m 644 "$TOP/personas/terminal/profile" "$root/etc/profile"
    printf 'root:x:0:0::/root:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\n' >"$root/etc/group"
    python3 "$LIB/closure.py" "$1" "$root" || die "the terminal's libraries are not complete."
}

begin_image
step "building $IMAGE"
make_root "$(debian_tree terminal "$LOCK/terminal-packages.txt")"
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot "$WORK/root" foot --check-config || die "foot does not run in the image's root."
config='{"Cmd": ["foot"], "Env": ["PATH=/bin", "LANG=C.UTF-8", "SHELL=/bin/sh", "XDG_CACHE_HOME=/tmp"], "WorkingDir": "/"}'
python3 "$LIB/packtree.py" --name "$IMAGE" --epoch "$IMAGE_EPOCH" --config "$config" --out "$WORK/image.tar" "terminal=$WORK/root" ||
    die "the image could not be packed."
publish_image "$out" "$IMAGE"
