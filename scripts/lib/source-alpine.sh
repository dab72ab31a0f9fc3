# shellcheck shell=bash
# --from alpine: the seat of the canonical build. A source has to leave
#   $ROOTFS                      the userland, packages unpacked
#   $WORK/packages.tsv           kind, name, version, arch, sha256 of each package
#   $WORK/kernel/                vmlinuz, release, modules/<release>/, busybox, ld-musl-x86_64.so.1
# Every stage after that (rootfs.sh, check.sh, pack.sh, manifest.sh) is the same for both.

source_alpine() {
    die "the canonical build inside the pinned container ($ALPINE_BUILDER_IMAGE) is not built yet: use --from registry."
}
