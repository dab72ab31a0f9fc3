# shellcheck shell=bash
# How a filesystem for /persist is made, wherever one is.

# What ext4 cannot get later without being unmounted: limits for a directory (project, quota) and encrypted
# directories. None does anything until it is used, but that the kernel counts what each owner has.
# shellcheck disable=SC2034  # for the scripts that source this file
PERSIST_FEATURES=project,quota,encrypt

# count_owners FILE: mke2fs -d and debugfs write files without counting them for their owners; e2fsck does.
count_owners() {
    local status=0
    e2fsck -fp "$1" >/dev/null 2>&1 || status=$?
    [ "$status" -le 1 ] # 1: corrected
}
