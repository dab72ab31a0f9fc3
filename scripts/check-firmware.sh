#!/usr/bin/env bash
# Usage: scripts/check-firmware.sh [--json] [--all] [--accept GLOB]... [PATH]
#
# Is the firmware there that the kernel modules of an image ask for? For Intel and AMD
# graphics (i915, amdgpu), Intel wireless (iwlwifi) and the processors' microcode; all
# other modules are counted, but which of their firmware an image should carry is a matter
# of taste. PATH is a root folder or a spine.img (default build/rootfs, else
# build/spine.img).
#
#   --json         the table for programs
#   --all          the other modules count as well, and what they miss is named
#   --accept GLOB  a file that may be missing (a driver names files that were never
#                  published); may be repeated
#
# States: present; missing, with the names; not applicable: no such module in this image.
# iwlwifi names the newest API of a file and takes older ones; so does this check.
# Microcode counts in front of the image (early), or below lib/firmware (late).
#
# Exit status: 0 all there; 1 something is missing or unreadable; 2 it could not be
# checked; 3 there was nothing to check: the image is for virtual machines, which says
# nothing about real hardware. Needs python3; fsck.erofs (erofs-utils) for a spine.img.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"

arguments=()
path=""
while [ $# -gt 0 ]; do
    case $1 in
        --json | --all) arguments+=("$1") ;;
        --accept) need_value "$@"; arguments+=(--accept "$2"); shift ;;
        --accept=*) arguments+=("$1") ;;
        -h | --help) help_from "$0"; exit 0 ;;
        -*) usage_error "unknown option $1." ;;
        *) [ -z "$path" ] || usage_error "only one PATH, not '$path' and '$1'."; path="$1" ;;
    esac
    shift
done
if [ -z "$path" ]; then
    path="$TOP/build/rootfs"
    [ -d "$path" ] || path="$TOP/build/spine.img"
fi
need_command python3 "install Debian's python3."
if [ ! -e "$path" ]; then
    echo "$PROG: there is nothing at $path: build it with scripts/mkspine.sh, or name a root folder or a spine.img." >&2
    exit 2
fi
exec python3 "$LIB/firmware.py" "${arguments[@]}" "$path"
