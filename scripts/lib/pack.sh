# shellcheck shell=bash
# $ROOTFS -> one EROFS file -> a small cpio with stage 0 around it. The kernel unpacks
# the cpio; EROFS is read in place, compressed, so the image costs its packed size in RAM.

# pack_image: leaves $WORK/root.erofs and $WORK/spine.img.
pack_image() {
    step "packing the root as EROFS ..."
    # bay0 lies uncompressed: it is read once, at the start, and every boot waits for it.
    echo '0 usr/lib/bay0/.*' >"$WORK/hints"
    in_buildroot --ro "$ROOTFS" /rootfs --rw "$WORK" /out -- \
        mkfs.erofs --quiet -zlz4hc,9 -C16384 --compress-hints=/out/hints -x-1 -T "$SOURCE_DATE_EPOCH" -U "$EROFS_UUID" \
        --all-root /out/root.erofs /rootfs >"$BUILD/erofs.log" 2>&1 || {
        tail -n 10 "$BUILD/erofs.log" >&2
        die "mkfs.erofs could not pack build/rootfs (its log is build/erofs.log)."
    }
    step "wrapping it with stage 0 ..."
    pack_stage0
}

# module_chain NAME...: the files of these modules behind their dependencies, in loading order.
module_chain() {
    local dep="$ROOTFS/usr/lib/modules/$KERNEL_RELEASE/modules.dep" name line file
    for name in "$@"; do
        line="$(grep -E "/$name\.ko:" "$dep")" || die "the kernel package has no module '$name', and stage 0 needs it."
        # modules.dep lists what is needed last first.
        for file in ${line#*:}; do echo "$file"; done | tac
        echo "${line%%:*}"
    done | awk '!seen[$0]++'
}

pack_stage0() {
    local entries=() watchdogs=() file number=10
    entries+=(dir:dev dir:modules dir:newroot dir:proc dir:bin dir:lib)
    # The kernel opens /dev/console before /init can mount anything.
    entries+=(node:dev/console:600:5:1 node:dev/null:666:1:3)
    entries+=("file:init:755:$TOP/scripts/stage0/init")
    entries+=("file:bin/busybox:755:$WORK/kernel/busybox")
    entries+=("file:lib/ld-musl-x86_64.so.1:755:$WORK/kernel/ld-musl-x86_64.so.1")
    for file in $(module_chain loop erofs); do
        entries+=("file:modules/$number-$(basename "$file"):644:$ROOTFS/usr/lib/modules/$KERNEL_RELEASE/$file")
        number=$((number + 1))
    done
    # of these what the kernel package has: the PC's of QEMU, Intel's with the bridge it is found through, AMD's
    entries+=(dir:modules/watchdog)
    for file in i6300esb lpc_ich iTCO_wdt sp5100_tco; do
        grep -qE "/$file\.ko:" "$ROOTFS/usr/lib/modules/$KERNEL_RELEASE/modules.dep" && watchdogs+=("$file")
    done
    for file in $(module_chain "${watchdogs[@]}"); do
        entries+=("file:modules/watchdog/$number-$(basename "$file"):644:$ROOTFS/usr/lib/modules/$KERNEL_RELEASE/$file")
        number=$((number + 1))
    done
    entries+=("file:root.erofs:644:$WORK/root.erofs")
    python3 "$TOP/scripts/lib/mkcpio.py" "$WORK/spine.img" "${entries[@]}"
    [ ! -f "$WORK/kernel/microcode.img" ] || add_microcode
}

# add_microcode: in front, where the kernel looks for it before it unpacks anything (Documentation/arch/x86/microcode).
add_microcode() {
    local size
    size="$(stat -c %s "$WORK/kernel/microcode.img")"
    truncate -s $(((size + 511) / 512 * 512)) "$WORK/kernel/microcode.img"
    cat "$WORK/kernel/microcode.img" "$WORK/spine.img" >"$WORK/spine.img.part"
    mv "$WORK/spine.img.part" "$WORK/spine.img"
}
