# shellcheck shell=bash
# The manifest and the SBOM: what is in the image, down to every package's hash.

# lock_files: the locks that this source builds from.
lock_files() {
    case $SOURCE in
        registry) printf '%s\n' "$LOCK"/{alpine,debian-packages,buildroot-packages,freeze}.txt ;;
        alpine) printf '%s\n' "$WORK/alpine-packages.txt" "$LOCK/freeze-musl.txt" ;;
    esac
}

# wheels_lock: the one of them that names wheels.
wheels_lock() { lock_files | grep '/freeze[^/]*$'; }

# lock_hash: one digest over their contents.
lock_hash() { lock_files | while read -r file; do sha256sum <"$file"; done | sha256sum | cut -c1-64; }

# write_manifest image|full: JSON on stdout. `image` is the copy inside the image,
# which cannot hold the digests of the files it is part of.
write_manifest() {
    local more=()
    if [ "$1" = full ]; then
        more=(--artifact "vmlinuz=$WORK/vmlinuz" --artifact "root.erofs=$WORK/root.erofs"
            --artifact "spine.img=$WORK/spine.img")
    fi
    [ "${UNVERIFIED:-no}" = no ] || more+=(--unverified)
    python3 "$TOP/scripts/lib/manifest.py" --source "$SOURCE" --flavor "$FLAVOR" --bay0 "$BAY0_VERSION" \
        --kernel "$KERNEL_RELEASE" --epoch "$SOURCE_DATE_EPOCH" --packages "$WORK/packages.tsv" \
        --build-packages "$WORK/build-packages.tsv" --wheels "$(wheels_lock)" --lock-hash "$(lock_hash)" \
        --os-release "$ROOTFS/etc/os-release" --builder "${IMAGE:-}" --content "$(content_digest)" "${more[@]}"
}

# content_digest: of the finished root, but for the manifest inside it.
content_digest() {
    [ -s "$WORK/content" ] || python3 "$TOP/scripts/lib/rootdigest.py" "$ROOTFS" >"$WORK/content"
    cat "$WORK/content"
}

# write_sbom: CycloneDX on stdout, from the manifest and what the packages themselves say of their licences.
write_sbom() {
    python3 "$TOP/scripts/lib/sbom.py" --manifest "$WORK/spine.manifest.json" --root "$ROOTFS" --bundled "$WORK/bundled.tsv" \
        --wheels "$WORK/wheels" --apk "$WORK/apk-installed" --docs "$WORK/docs"
}

# show_drift OLD NEW: packages that changed since the last manifest; never a failure.
show_drift() {
    [ -f "$1" ] || return 0
    python3 "$TOP/scripts/lib/manifest.py" --drift "$1" "$2" >&2 || note "the last manifest cannot be compared"
}
