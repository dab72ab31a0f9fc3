#!/usr/bin/env bash
# Usage: scripts/mkspine.sh [--from registry|alpine] [--fresh]
#
# Builds the spine: ./vmlinuz, ./build/spine.img and ./build/spine.manifest.json.
#
#   --from registry  Alpine's kernel from a hash-pinned wheel, the userland from Debian's
#                    signed packages, bay0 frozen in a build root made for it (default)
#   --from alpine    the canonical build inside the pinned container: not built yet
#   --fresh          forget every cached download and build root first
#
# build/rootfs is wiped and made anew each time; downloads and the build root are kept
# in build/cache. The same inputs give the same bytes: times come from SOURCE_DATE_EPOCH
# (default: the last commit's time). Needs root for its chroots and asks sudo for it.
# Host tools: mmdebstrap, qemu-img, debugfs, python3 with pip; scripts/quickstart.sh
# installs them. A failed build changes none of the three files.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
for part in inputs wheels buildroot source-registry source-alpine freeze rootfs pack manifest host-tools; do
    # shellcheck source=/dev/null
    . "$LIB/$part.sh"
done

SOURCE=registry
fresh=no
arguments=("$@")
while [ $# -gt 0 ]; do
    case $1 in
        --from) need_value "$@"; SOURCE="$2"; shift ;;
        --from=*) SOURCE="${1#*=}" ;;
        --fresh) fresh=yes ;;
        -h | --help) help_from "$0"; exit 0 ;;
        *) usage_error "unknown option $1." ;;
    esac
    shift
done
case $SOURCE in
    alpine) source_alpine ;;
    registry) ;;
    *) usage_error "--from takes registry or alpine, not '$SOURCE'." ;;
esac

become_root "$TOP/scripts/mkspine.sh" "${arguments[@]}"

# bay0's version, as its package states it.
bay0_version() {
    sed -n 's/^__version__ *\(: *[A-Za-z.]* *\)\?= *"\([^"]*\)".*/\2/p' "$TOP/bay0/__init__.py" | head -n 1
}

# publish: the finished files get their names, the manifest last.
publish() {
    show_drift "$BUILD/spine.manifest.json" "$WORK/spine.manifest.json"
    give_back "$WORK/vmlinuz" "$WORK/spine.img" "$WORK/spine.manifest.json" "$BUILD"
    rm -f "$BUILD/spine.inputs"
    mv "$WORK/vmlinuz" "$TOP/vmlinuz"
    mv "$WORK/spine.img" "$BUILD/spine.img"
    mv "$WORK/spine.manifest.json" "$BUILD/spine.manifest.json"
    echo "$inputs" > "$BUILD/spine.inputs"
}

umask 022
export LC_ALL=C
mkdir -p "$CACHE"
exec 9>"$BUILD/.lock"
flock -n 9 || { note "another build is running in this checkout: waiting for it"; flock 9; }
if [ "$fresh" = yes ]; then step "dropping build/cache"; rm -rf "${CACHE:?}"/*; fi
for tool in mmdebstrap qemu-img debugfs; do
    need_command "$tool" "install Debian's packages for it: $(missing_packages build | xargs), or let scripts/quickstart.sh do it."
done

# Before anything is read: what changes during the build must count as changed.
inputs="$(inputs_hash)"
SOURCE_DATE_EPOCH="$(source_date)"
export SOURCE_DATE_EPOCH
BAY0_VERSION="$(bay0_version)"
[ -n "$BAY0_VERSION" ] || die "bay0/__init__.py states no __version__: the checkout is not complete."
rm -rf "$BUILD"/work.*
WORK="$(mktemp -d "$BUILD/work.XXXXXX")"
trap 'rm -rf "$WORK"' EXIT

step "building the spine of bay0 $BAY0_VERSION from $SOURCE"
rm -rf "$ROOTFS"
ensure_buildroot
"source_$SOURCE"
KERNEL_RELEASE="$(cat "$WORK/kernel/release")"
cp "$WORK/kernel/vmlinuz" "$WORK/vmlinuz"
step "freezing bay0 ..."
freeze_bay0 "$WORK"
step "making build/rootfs (kernel $KERNEL_RELEASE) ..."
finish_rootfs
pack_image
step "checking the build ..."
"$LIB/check.sh" "$ROOTFS" "$WORK/spine.img"
write_manifest full > "$WORK/spine.manifest.json"
publish
note "not included: sway (staged for later), firmware (the VM flavour needs none)"
step "done: vmlinuz, build/spine.img ($(($(stat -c %s "$BUILD/spine.img") / 1000000)) MB), build/spine.manifest.json"
note "sha256 of spine.img: $(sha256sum "$BUILD/spine.img" | cut -c1-64)"
