# shellcheck shell=bash
# The manifest: what is in the image, down to every package's hash.

# write_manifest image|full: JSON on stdout. `image` is the copy inside the image,
# which cannot hold the digests of the files it is part of.
write_manifest() {
    local digests=()
    if [ "$1" = full ]; then
        digests=(--artifact "vmlinuz=$WORK/vmlinuz" --artifact "root.erofs=$WORK/root.erofs"
            --artifact "spine.img=$WORK/spine.img")
    fi
    python3 "$TOP/scripts/lib/manifest.py" --source "$SOURCE" --bay0 "$BAY0_VERSION" \
        --kernel "$KERNEL_RELEASE" --epoch "$SOURCE_DATE_EPOCH" --packages "$WORK/packages.tsv" \
        --build-packages "$(buildroot_dir)/packages.tsv" --lock "$LOCK/freeze.txt" "${digests[@]}"
}

# show_drift OLD NEW: packages that changed since the last manifest; never a failure.
show_drift() {
    [ -f "$1" ] || return 0
    python3 "$TOP/scripts/lib/manifest.py" --drift "$1" "$2" >&2 || note "the last manifest cannot be compared"
}
