#!/usr/bin/env bash
# Usage: scripts/lib/check.sh [ROOTFS [IMAGE]]
#
# Checks a built root (default build/rootfs) and image (default build/spine.img, if
# it is there): every program finds its libraries inside the image, /sbin/init leads
# to a program, the ghost root is complete, /persist is empty, nobody is setuid who
# need not be, and the image stays under 180 MB (metal: 400 MB). One line for each failure; status 1
# if there was any.
set -euo pipefail
# shellcheck source=say.sh
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"

case "${1:-}" in
    -h | --help) help_from "$0"; exit 0 ;;
    -*) usage_error "unknown option $1." ;;
esac
rootfs="${1:-$TOP/build/rootfs}"
image="${2:-$TOP/build/spine.img}"
# Firmware is most of the metal image.
limit=$((180 * 1000 * 1000))
if grep -qs '^VARIANT_ID=.*-metal' "$rootfs/etc/os-release"; then limit=$((400 * 1000 * 1000)); fi
[ -d "$rootfs" ] || die "there is no $rootfs: build it with scripts/mkspine.sh."

failures=0
if ! python3 "$TOP/scripts/lib/check_rootfs.py" "$rootfs"; then failures=1; fi
if [ -f "$image" ] && [ "$(stat -c %s "$image")" -ge "$limit" ]; then
    note "FAIL $image is $(($(stat -c %s "$image") / 1000000)) MB; it must stay under $((limit / 1000000)) MB."
    failures=1
fi
[ "$failures" -eq 0 ] || die "the build is not fit to boot, see the FAIL lines above."
