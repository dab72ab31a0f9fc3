#!/usr/bin/env bash
# Usage: scripts/mkpersist.sh [--size 10G] [--force] [PATH]
#
# Makes the spine's persist disk: a sparse file (default ./persist.img) with an ext4
# labelled SPINE-PERSIST. It takes a few MB of real space until it is written to.
#
#   --size SIZE   a number with K, M, G or T; at least 16M (default 10G)
#   --force       replace PATH if it exists; without it an existing file is never touched
#
# Needs no root; needs mkfs.ext4 (Debian's e2fsprogs).
set -euo pipefail
# shellcheck source=lib/say.sh
. "$(dirname "$0")/lib/say.sh"

size=10G
force=no
path=""
while [ $# -gt 0 ]; do
    case $1 in
        --size) need_value "$@"; size="$2"; shift ;;
        --size=*) size="${1#*=}" ;;
        --force) force=yes ;;
        -h | --help) help_from "$0"; exit 0 ;;
        -*) usage_error "unknown option $1." ;;
        *) [ -z "$path" ] || usage_error "only one PATH, not '$path' and '$1'."; path="$1" ;;
    esac
    shift
done
path="${path:-$TOP/persist.img}"

[[ $size =~ ^[1-9][0-9]{0,11}[KMGT]?$ ]] || usage_error "--size takes a number with K, M, G or T, not '$size'."
bytes="$(numfmt --from=iec "$size")"
[ "$bytes" -ge $((16 * 1024 * 1024)) ] || usage_error "--size $size is too small: an ext4 with a journal needs 16M."
[ ! -d "$path" ] || die "$path is a directory: name a file."
[ ! -b "$path" ] || die "$path is a block device; this script only makes image files."
[ "$force" = yes ] || [ ! -e "$path" ] ||
    die "$path exists and may hold data: use --force to replace it, or name another file."
[ -d "$(dirname "$path")" ] || die "the directory $(dirname "$path") does not exist: make it first."
PATH="$PATH:/usr/sbin:/sbin"
need_command mkfs.ext4 "install Debian's e2fsprogs."

part="$(mktemp "$path.XXXXXX")" || die "cannot write to $(dirname "$path")."
trap 'rm -f "$part"' EXIT
truncate -s "$bytes" "$part" || die "the file system of $path cannot hold a sparse file of $size."
# On a new sparse file mke2fs knows that all is zero, so no lazy initialisation is left
# for the kernel to do behind the first mount's back. Root owns the top, whoever runs this.
mkfs.ext4 -q -L SPINE-PERSIST -m 1 -E root_owner=0:0,lazy_journal_init=1 "$part" ||
    die "mkfs.ext4 failed, see its message above."
chmod 644 "$part"
if [ "$force" = yes ]; then
    mv -f "$part" "$path"
else
    # link fails if somebody made the file meanwhile
    ln "$part" "$path" 2>/dev/null || die "$path appeared while this ran: nothing was replaced."
    rm -f "$part"
fi
trap - EXIT
echo "$PROG: made $path ($size, $(du -k "$path" | cut -f1) KB on disk). Boot with it: scripts/boot-qemu.sh --persist $path"
