#!/usr/bin/env bash
# Usage: scripts/mkpersist.sh [--size 10G] [--force] [--image FILE]... [PATH]
#        scripts/mkpersist.sh --add FILE [--force] [PATH]
#
# Makes the spine's persist disk: a sparse file (default ./persist.img) with an ext4
# labelled SPINE-PERSIST. It takes a few MB of real space until it is written to. Its
# features are project, quota and encrypt, so that what is to come converts no disk.
#
#   --size SIZE   a number with K, M, G or T; at least 16M (default 10G)
#   --force       replace PATH if it exists; without it an existing file is never touched
#   --image FILE  put an image archive (scripts/mkpersona.sh, `podman save`) on the disk;
#                 on the spine: bay0 image load /persist/images/NAME. May be repeated
#   --add FILE    put an image archive onto the disk PATH that is there already, while no
#                 spine runs on it; nothing else of it is touched. May be repeated;
#                 --force replaces an archive of the same name
#
# Needs no root; needs mkfs.ext4 and debugfs (Debian's e2fsprogs), for --add python3.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/images.sh
. "$LIB/images.sh"
# shellcheck source=lib/persistfs.sh
. "$LIB/persistfs.sh"

size=10G
force=no
images=()
add=no
made=no # an option was given that makes a disk
path=""
while [ $# -gt 0 ]; do
    case $1 in
        --size) need_value "$@"; made=yes; size="$2"; shift ;;
        --size=*) made=yes; size="${1#*=}" ;;
        --force) force=yes ;;
        --add) need_value "$@"; add=yes; images+=("$2"); shift ;;
        --add=*) add=yes; images+=("${1#*=}") ;;
        --image) need_value "$@"; made=yes; images+=("$2"); shift ;;
        --image=*) made=yes; images+=("${1#*=}") ;;
        -h | --help) help_from "$0"; exit 0 ;;
        -*) usage_error "unknown option $1." ;;
        *) [ -z "$path" ] || usage_error "only one PATH, not '$path' and '$1'."; path="$1" ;;
    esac
    shift
done
path="${path:-$TOP/persist.img}"
[ "$add$made" != yesyes ] || usage_error "--add puts archives onto a disk that is there; --size and --image make one: choose."

[[ $size =~ ^[1-9][0-9]{0,11}[KMGT]?$ ]] || usage_error "--size takes a number with K, M, G or T, not '$size'."
bytes="$(numfmt --from=iec "$size")"
[ "$bytes" -ge $((16 * 1024 * 1024)) ] || usage_error "--size $size is too small: an ext4 with a journal needs 16M."
[ ! -d "$path" ] || die "$path is a directory: name a file."
[ ! -b "$path" ] || die "$path is a block device; this script only makes image files."
[ "$add" = no ] || [ -e "$path" ] || die "there is no disk at $path: make it with scripts/mkpersist.sh --image FILE $path."
[ "$force$add" != nono ] || [ ! -e "$path" ] ||
    die "$path exists and may hold data: use --force to replace it, or name another file."
[ -d "$(dirname "$path")" ] || die "the directory $(dirname "$path") does not exist: make it first."
PATH="$PATH:/usr/sbin:/sbin"
need_command mkfs.ext4 "install Debian's e2fsprogs."

# check_images: archives, each with a name of its own that a command line and debugfs take as it is.
check_images() {
    local file name seen=" "
    for file in "${images[@]}"; do
        name="$(basename "$file")"
        [ -f "$file" ] || die "there is no file $file."
        [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] || die "rename $file first: letters, digits, dot, hyphen and _ only."
        case $seen in *" $name "*) die "two images are called $name: rename one of them." ;; esac
        seen+="$name "
        is_image_archive "$file" || die "$file is no image archive: make one with scripts/mkpersona.sh or podman save."
    done
}

# own_images DEVICE: mke2fs -d copies owners and modes, and whoever runs this is not root.
own_images() {
    local name
    {
        echo "set_inode_field /images uid 0"
        echo "set_inode_field /images gid 0"
        for name in "${images[@]##*/}"; do
            echo "set_inode_field /images/$name uid 0"
            echo "set_inode_field /images/$name gid 0"
        done
    } | debugfs -w -f - "$1" >/dev/null 2>&1 && count_owners "$1" || die "debugfs could not give the images to root."
}

if [ "$add" = yes ]; then
    need_command debugfs "install Debian's e2fsprogs."
    need_command python3 "install Debian's python3."
    check_images
    only=()
    [ "$force" = no ] || only=(--force)
    "$LIB/addimages.py" "${only[@]}" "$path" "${images[@]}" || exit 1
    for name in "${images[@]##*/}"; do note "on it: bay0 image load /persist/images/$name"; done
    exit 0
fi

populate=()
if [ ${#images[@]} -gt 0 ]; then
    need_command debugfs "install Debian's e2fsprogs."
    check_images
fi
part="$(mktemp "$path.XXXXXX")" || die "cannot write to $(dirname "$path")."
trap 'rm -rf "$part" "$part.d"' EXIT
if [ ${#images[@]} -gt 0 ]; then
    mkdir -m 755 "$part.d" "$part.d/images"
    cp --reflink=auto "${images[@]}" "$part.d/images/" || die "the image archives could not be copied next to $path."
    chmod 644 "$part.d/images"/*
    populate=(-d "$part.d")
fi
truncate -s "$bytes" "$part" || die "the file system of $path cannot hold a sparse file of $size."
# On a new sparse file mke2fs knows that all is zero, so no lazy initialisation is left
# for the kernel to do behind the first mount's back. Root owns the top, whoever runs this.
mkfs.ext4 -q -L SPINE-PERSIST -O "$PERSIST_FEATURES" -m 1 -E root_owner=0:0,lazy_journal_init=1 "${populate[@]}" "$part" ||
    die "mkfs.ext4 failed, see its message above.${populate:+ Do the images fit into $size?}"
[ ${#images[@]} -eq 0 ] || own_images "$part"
chmod 644 "$part"
if [ "$force" = yes ]; then
    mv -f "$part" "$path"
else
    # link fails if somebody made the file meanwhile
    ln "$part" "$path" 2>/dev/null || die "$path appeared while this ran: nothing was replaced."
fi
for name in "${images[@]##*/}"; do note "on it: /persist/images/$name"; done
echo "$PROG: made $path ($size, $(du -k "$path" | cut -f1) KB on disk). Boot with it: scripts/boot-qemu.sh --persist $path"
