# shellcheck shell=bash
# shellcheck disable=SC2154,SC2054  # the variables are boot-qemu.sh's options; commas are QEMU's
# A disk that boots by itself: UEFI firmware, and the disk behind it.

OVMF=/usr/share/OVMF

# start_efi: nothing comes from us but the firmware.
start_efi() {
    [ ${#own[@]} -eq 0 ] || usage_error "with --efi all is on the disk: leave out ${own[*]}."
    [ -e "$efi" ] || die "there is no disk at $efi: make one with scripts/genesis-flash.sh --size 4G $efi"
    [ -f "$OVMF/OVMF_CODE_4M.fd" ] || die "there is no UEFI firmware for QEMU: install Debian's ovmf."
    judge_words
    make_tmp
    qemu_machine "$accel"
    qemu_firmware
    qemu_efi_disk
}

# judge_words: the words are on the disk and nobody can add to them, so say what will be missed.
judge_words() {
    local found at path
    command -v mcopy >/dev/null || return 0
    read -r at path <<<"$(python3 -B "$LIB/slots.py" booted "$efi" 2>/dev/null)" && [ -n "$path" ] || return 0
    found="$(MTOOLS_SKIP_CHECK=1 mcopy -i "$efi@@$at" "::$path" - 2>/dev/null | python3 "$LIB/mkuki.py" words - 2>/dev/null)" || return 0
    [ "$with_exec" = no ] || [[ " $found " == *" bay0.exec "* ]] ||
        die "--exec needs the word bay0.exec, and the UKI on $efi has not got it: scripts/package-efi.sh --append bay0.exec, then flash again."
    [ "$accel" = kvm ] || [[ $found == *bay0.patience=* ]] ||
        note "without KVM bounds are soon missed: scripts/package-efi.sh --append bay0.patience=$(measured_patience "$accel") makes a UKI for it"
}

# qemu_firmware: OVMF with variables of its own, forgotten afterwards. Enforcing Secure Boot takes the build
# that keeps them behind SMM, or the guest could change them.
qemu_firmware() {
    local code="$OVMF/OVMF_CODE_4M.fd" vars="$OVMF/OVMF_VARS_4M.fd"
    if [ -n "$secure_boot" ]; then
        code="$OVMF/OVMF_CODE_4M.secboot.fd"
        vars="$secure_boot"
        [ "$vars" != snakeoil ] || vars="$OVMF/OVMF_VARS_4M.snakeoil.fd"
        [ -f "$vars" ] || die "there are no firmware variables at $vars: name a file, or snakeoil for Debian's test keys."
        QEMU+=(-machine q35,smm=on -global driver=cfi.pflash01,property=secure,value=on)
    else
        QEMU+=(-machine q35)
    fi
    cp "$vars" "$TMP/vars.fd"
    chmod 600 "$TMP/vars.fd"
    QEMU+=(-drive "if=pflash,unit=0,format=raw,readonly=on,file=$code" -drive "if=pflash,unit=1,format=raw,file=$TMP/vars.fd")
}

# qemu_efi_disk: where the firmware looks first.
qemu_efi_disk() {
    QEMU+=(-drive "file=${efi//,/,,},format=raw,if=none,id=disk,$ON_ERROR")
    warn_of_growth "$efi"
    case ${bus:-virtio} in
        virtio) QEMU+=(-device virtio-blk-pci,drive=disk,bootindex=1) ;;
        usb) QEMU+=(-device qemu-xhci -device usb-storage,drive=disk,removable=on,bootindex=1) ;;
        sata) QEMU+=(-device ide-hd,bus=ide.0,drive=disk,bootindex=1) ;;
        nvme) QEMU+=(-device nvme,serial=spine,drive=disk,bootindex=1) ;;
        *) usage_error "--bus takes virtio, usb, sata or nvme, not '$bus'." ;;
    esac
}
