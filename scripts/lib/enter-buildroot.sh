#!/usr/bin/env bash
# Internal: called by in_buildroot (lib/buildroot.sh) inside a new mount namespace.
# Arguments: ROOT [ro|rw HOSTDIR AT]... -- CMD...
set -euo pipefail

root="$1"
shift
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
    mount --bind "$2" "$root$3"
    [ "$1" = rw ] || mount -o remount,bind,ro "$root$3"
    shift 3
done
shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"

# /src first in PYTHONPATH: bay0 is imported from there, in both environments.
exec env -i \
    PATH=/opt/unit/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TMPDIR=/tmp LANG=C.UTF-8 TZ=UTC \
    PYTHONPATH=/src PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 \
    HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis PYTEST_ADDOPTS="-p no:cacheprovider" \
    PYINSTALLER_CONFIG_DIR=/tmp/pyinstaller \
    SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" \
    chroot "$root" /bin/sh -c '[ ! -d /src ] || cd /src; exec "$@"' sh "$@"
