# shellcheck shell=bash
# shellcheck disable=SC2154 # fresh: an option of mkspine.sh
# What a build is made of once the packages are there; the same for both sources.

# bay0's version, as its package states it.
bay0_version() {
    sed -n 's/^__version__ *\(: *[A-Za-z.]* *\)\?= *"\([^"]*\)".*/\2/p' "$TOP/bay0/__init__.py" | head -n 1
}

# build_spine: $ROOTFS and $WORK/kernel (see source-alpine.sh) -> vmlinuz, spine.img, manifest and SBOM in $WORK.
build_spine() {
    KERNEL_RELEASE="$(cat "$WORK/kernel/release")"
    cp "$WORK/kernel/vmlinuz" "$WORK/vmlinuz"
    step "freezing bay0 ..."
    freeze_bay0 "$WORK"
    step "making the root (kernel $KERNEL_RELEASE) ..."
    finish_rootfs
    pack_image
    step "checking the build ..."
    "$LIB/check.sh" "$ROOTFS" "$WORK/spine.img"
    write_manifest full > "$WORK/spine.manifest.json"
    write_sbom > "$WORK/spine.sbom.json"
    python3 "$LIB/sbom.py" --check "$WORK/spine.sbom.json" "$ROOTFS" || die "the SBOM does not fit the image, see the FAIL lines above."
}

# say_if_full STATUS: tools say a full disk in many ways, some not at all; this is before the build's folder goes.
say_if_full() {
    [ "$1" -ne 0 ] && [ "$(df -kP "$BUILD" | awk 'NR == 2 { print $4 }')" -lt 16000 ] || return 0
    note "There is no space left in $BUILD: a build needs about 1 GB there besides its cache."
}

# open_build: the build's lock, its inputs' hash, the time of everything, and a folder that goes away with us.
open_build() {
    umask 022
    export LC_ALL=C
    mkdir -p "$CACHE"
    exec 9>"$BUILD/.lock"
    flock -n 9 || { note "another build is running in this checkout: waiting for it"; flock 9; }
    if [ "$fresh" = yes ]; then step "dropping build/cache"; rm -rf "${CACHE:?}"/*; fi
    # Before anything is read: what changes during the build must count as changed.
    inputs="$(inputs_hash)"
    SOURCE_DATE_EPOCH="$(source_date)"
    export SOURCE_DATE_EPOCH
    BAY0_VERSION="$(bay0_version)"
    [ -n "$BAY0_VERSION" ] || die "bay0/__init__.py states no __version__: the checkout is not complete."
    rm -rf "$BUILD"/work.* || die "what an interrupted build left cannot be removed: sudo rm -rf $BUILD/work.*"
    WORK="$(mktemp -d "$BUILD/work.XXXXXX")"
    trap 'say_if_full $?; rm -rf "$WORK"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# publish: the finished files get their names, the manifest last.
publish() {
    show_drift "$BUILD/spine.manifest.json" "$WORK/spine.manifest.json"
    give_back "$WORK/vmlinuz" "$WORK/spine.img" "$WORK/spine.manifest.json" "$WORK/spine.sbom.json" "$BUILD"
    rm -f "$BUILD/spine.inputs"
    mv "$WORK/vmlinuz" "$VMLINUZ"
    mv "$WORK/spine.img" "$BUILD/spine.img"
    mv "$WORK/spine.sbom.json" "$BUILD/spine.sbom.json"
    mv "$WORK/spine.manifest.json" "$BUILD/spine.manifest.json"
    echo "$inputs" > "$BUILD/spine.inputs"
    step "done: vmlinuz, build/spine.img ($(($(stat -c %s "$BUILD/spine.img") / 1000000)) MB), build/spine.manifest.json, build/spine.sbom.json"
    note "sha256 of spine.img: $(sha256sum "$BUILD/spine.img" | cut -c1-64)"
}
