#!/usr/bin/env bash
# Usage: scripts/genesis-flash.sh [OPTION...] DEVICE|IMAGE
#
# DESTROYS what is on DEVICE (a whole disk, such as a USB stick) and makes a disk of it
# that boots the spine by itself on a PC with UEFI:
#   partition 1  EFI system partition, FAT32: EFI/BOOT/BOOTX64.EFI is the UKI
#   partition 2  the rest, ext4 labelled SPINE-PERSIST: /persist
# With the path of an image file it does the same to that file, without root.
#
#   --size SIZE        make IMAGE as a new sparse file of this size (a number with K, M, G
#                      or T). A file of exactly this size is taken as it is
#   --uki F            what boots (default ./build/spine.efi, from scripts/package-efi.sh)
#   --esp SIZE         of partition 1 (default 512M; room for a second UKI)
#   --yes-destroy DEV  do not ask: DEV must be the target's name, as it is shown
#   --dry-run          show what would be destroyed, or why it is refused; write nothing
#
# Before anything is written it shows model, size, partitions and labels, and wants the
# name typed. It refuses whatever is mounted, swapped to, held by another device or a VM,
# or holds the running system; partitions; what is read-only or too small.
#
# First the old partition table goes, last comes the new one, after everything was read
# back and compared. Interrupted in between, the disk has no partitions and nothing on it
# is believed: run it again. What is not overwritten is not erased: this is no shredder.
#
# Needs sgdisk, mtools, e2fsprogs, python3; root only for what belongs to root.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/host-tools.sh
. "$LIB/host-tools.sh"

MIB=$((1024 * 1024))
ESP_AT=$MIB          # bytes; where everybody begins the first partition
PERSIST_LEAST=$((64 * MIB))
TAIL=$MIB            # behind the last partition: the second GPT

size=""
uki="$TOP/build/spine.efi"
esp=512M
yes=""
dry_run=no
given=""
while [ $# -gt 0 ]; do
    case $1 in
        --size) need_value "$@"; size="$2"; shift ;;
        --size=*) size="${1#*=}" ;;
        --uki) need_value "$@"; uki="$2"; shift ;;
        --esp) need_value "$@"; esp="$2"; shift ;;
        --yes-destroy) need_value "$@"; yes="$2"; shift ;;
        --dry-run) dry_run=yes ;;
        -h | --help) help_from "$0"; exit 0 ;;
        -*) usage_error "unknown option $1." ;;
        *) [ -z "$given" ] || usage_error "only one target, not '$given' and '$1'."; given="$1" ;;
    esac
    shift
done

# to_bytes OPTION SIZE: a whole number of MiB.
to_bytes() {
    local bytes
    [[ $2 =~ ^[1-9][0-9]{0,11}[KMGT]?$ ]] || usage_error "$1 takes a number with K, M, G or T, not '$2'."
    bytes="$(numfmt --from=iec "$2")"
    [ $((bytes % MIB)) -eq 0 ] || usage_error "$1 takes whole megabytes, not '$2'."
    echo "$bytes"
}

# check_uki: it is one, and fits with the filesystem's own needs beside it.
check_uki() {
    [ -f "$uki" ] || die "there is no UKI at $uki: make it with scripts/package-efi.sh."
    python3 "$LIB/mkuki.py" show "$uki" >"$work/uki.json" || die "$uki is not a UKI: make one with scripts/package-efi.sh."
    grep -q '"\.linux"' "$work/uki.json" || die "$uki has no kernel in it: make one with scripts/package-efi.sh."
    [ $(($(stat -c %s "$uki") + 4 * MIB)) -le "$esp_bytes" ] ||
        die "$uki ($(($(stat -c %s "$uki") / MIB)) MB) does not fit into a partition of $esp: give --esp more."
}

# new_image: the sparse file, under another name until it is complete.
new_image() {
    local folder
    folder="$(dirname "$given")"
    [ -d "$folder" ] || die "the directory $folder does not exist: make it first."
    [ "$size_bytes" -ge "$least" ] || die "--size $size is too small: $((least / MIB))M are needed."
    made="$(mktemp "$given.XXXXXX")" || die "cannot write to $folder."
    truncate -s "$size_bytes" "$made" || die "the file system of $given cannot hold a sparse file of $size."
    target="$made"
    kind=image
    bytes="$size_bytes"
    step "making $given, a new image file of $size"
}

# judge_target: what scripts/lib/target.py says; ends here if it must not be overwritten.
judge_target() {
    local verdict
    if ! verdict="$(python3 "$LIB/target.py" --lines --least "$least" --input "$uki" "$given")"; then
        die "${verdict:-$given cannot be judged, see above}. Nothing was written."
    fi
    { read -r target; read -r kind; read -r bytes; mapfile -t about; } <<<"$verdict"
    [ -z "$size" ] || [ "$bytes" -eq "$size_bytes" ] ||
        die "$given exists and is not $size large: leave --size out to overwrite it, or name a new file. Nothing was written."
}

# judge_again: the answer took its time, and meanwhile a desktop may have mounted it.
judge_again() {
    local verdict
    verdict="$(python3 "$LIB/target.py" --lines --least "$least" --input "$uki" "$target")" ||
        die "${verdict:-$target cannot be judged any more}. Nothing was written."
    [ "$(sed -n 3p <<<"$verdict")" = "$bytes" ] || die "$target is another disk than before. Nothing was written."
}

# confirm: the target's name, typed or given.
confirm() {
    local answer
    {
        echo
        echo "ALL OF THIS WILL BE DESTROYED:"
        printf "    %s\n" "${about[@]}"
        echo
    } >&2
    [ "$dry_run" = no ] || { step "dry run: this target would be taken; nothing was written"; exit 0; }
    if [ -n "$yes" ]; then
        [ "$yes" = "$target" ] || [ "$yes" = "$given" ] || die "--yes-destroy names $yes, the target is $target. Nothing was written."
        return
    fi
    [ -t 0 ] || die "nobody can be asked: give --yes-destroy $target. Nothing was written."
    read -r -p "Type $target to destroy it, anything else to leave it alone: " answer || answer=""
    [ "$answer" = "$target" ] || die "'$answer' is not $target. Nothing was written."
}

# write_at OFFSET FILE: FILE's first $3 bytes (default all) onto the target at OFFSET (bytes).
write_at() {
    local count="${3:-$(stat -c %s "$2")}"
    dd if="$2" of="$target" bs=4M count="$count" seek="$1" iflag=count_bytes oflag=seek_bytes conv=notrunc,fsync "${progress[@]}" ||
        die "writing to $target failed, see above. It has no partition table now: nothing on it is believed. Run this again."
}

# read_back OFFSET COUNT: what the target holds now; from the disk itself, not from memory.
read_back() {
    if [ "$kind" = disk ]; then blockdev --flushbufs "$target"; else dd if="$target" iflag=nocache count=0 status=none; fi
    dd if="$target" bs=4M skip="$1" count="$2" iflag=skip_bytes,count_bytes status=none
}

# make_esp: the FAT32 as a file, so that it is written in one go and can be compared.
make_esp() {
    local serial
    serial="$(sha256sum <"$uki" | cut -c1-8)" # of the UKI: the same input, the same bytes
    truncate -s "$esp_bytes" "$work/esp"
    mformat -i "$work/esp" -F -v SPINE-ESP -N "$serial" -T $((esp_bytes / 512)) -h 255 -s 63 -H $((ESP_AT / 512)) ::
    mmd -i "$work/esp" ::/EFI ::/EFI/BOOT
    mcopy -i "$work/esp" -m "$work/BOOTX64.EFI" ::/EFI/BOOT/BOOTX64.EFI
    # All that is in use lies in front: behind it the file was never written to.
    esp_used="$(python3 -c 'import os, sys
file = os.open(sys.argv[1], os.O_RDONLY); at = 0
try:
    while True: at = os.lseek(file, os.lseek(file, at, os.SEEK_DATA), os.SEEK_HOLE)
except OSError: print(at)' "$work/esp")"
}

# forget: no old table, and no old filesystem's signature in front. The far end first: while the near one
# stands, all is as it was; a table at the far end alone would be a half truth that tools like to repair.
forget() {
    dd if=/dev/zero of="$target" bs=$MIB count=$TAIL seek=$((bytes - TAIL)) iflag=count_bytes oflag=seek_bytes conv=notrunc,fsync status=none
    dd if=/dev/zero of="$target" bs=$MIB count=1 conv=notrunc,fsync status=none
}

write_persist() {
    # root owns the top, whoever runs this; a stick may hold anything, so inode tables are zeroed (at first use, by the kernel)
    mke2fs -q -F -t ext4 -L SPINE-PERSIST -m 1 -E "offset=$persist_at,root_owner=0:0" "$target" $((persist_bytes / 1024))k ||
        die "mke2fs failed on $target, see above. It has no partition table now: nothing on it is believed."
    [ "$kind" = image ] || blockdev --flushbufs "$target"
}

verify_contents() {
    local seen
    seen="$(read_back $ESP_AT "$esp_used" | sha256sum)"
    [ "$seen" = "$(head -c "$esp_used" "$work/esp" | sha256sum)" ] ||
        die "$target does not give back what was written to it: it is broken, or smaller than it says. It has no partition table now."
    [ "$(mcopy -i "$target@@$ESP_AT" ::/EFI/BOOT/BOOTX64.EFI - | sha256sum)" = "$(sha256sum <"$uki")" ] ||
        die "the UKI on $target is not the one that was written. It has no partition table now."
    e2fsck -fn "$target?offset=$persist_at" >"$work/e2fsck" 2>&1 || {
        tail -n 5 "$work/e2fsck" >&2
        die "the ext4 on $target is not whole when it is read back. It has no partition table now."
    }
}

# write_table: the very last; from here on the disk is believed.
write_table() {
    sgdisk --clear --set-alignment=2048 \
        --new="1:$((ESP_AT / 512)):$(((ESP_AT + esp_bytes) / 512 - 1))" --typecode=1:EF00 --change-name=1:SPINE-ESP \
        --new="2:$((persist_at / 512)):$(((persist_at + persist_bytes) / 512 - 1))" --typecode=2:8300 --change-name=2:SPINE-PERSIST \
        "$target" >"$work/sgdisk" 2>&1 && sgdisk --verify "$target" >>"$work/sgdisk" 2>&1 && grep -q 'No problems found' "$work/sgdisk" || {
        cat "$work/sgdisk" >&2
        die "sgdisk could not write the partition table of $target."
    }
    sync "$target"
}

# tell_kernel: so that the partitions can be used without unplugging.
tell_kernel() {
    [ "$kind" = disk ] || return 0
    blockdev --rereadpt "$target" 2>/dev/null || note "the kernel did not read the new partition table: unplug $target and plug it in again"
}

cleanup() {
    [ -z "${made:-}" ] || rm -f "$made"
    rm -rf "$work"
    [ "$writing" = no ] || echo "$PROG: interrupted: ${target} has no partition table, nothing on it is believed. Run this again." >&2
}

[ -n "$given" ] || usage_error "say which disk or image file."
PATH="$PATH:/usr/sbin:/sbin"
for tool in sgdisk mformat mcopy mke2fs e2fsck python3; do
    need_command "$tool" "install Debian's packages for it: $(missing_packages efi | xargs)."
done
export MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null
esp_bytes="$(to_bytes --esp "$esp")"
[ "$esp_bytes" -ge $((40 * MIB)) ] || usage_error "--esp takes at least 40M: a smaller one is no FAT32."
[ "$esp_bytes" -le $((32 * 1024 * MIB)) ] || usage_error "--esp takes at most 32G."
size_bytes=""
[ -z "$size" ] || size_bytes="$(to_bytes --size "$size")"
persist_at=$((ESP_AT + esp_bytes))
least=$((persist_at + PERSIST_LEAST + TAIL))
writing=no
made=""
work="$(mktemp -d)"
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
check_uki
if [ -n "$size" ] && [ ! -e "$given" ] && [ ! -L "$given" ]; then
    [ "$dry_run" = no ] || { step "dry run: $given would be made; nothing was written"; exit 0; }
    new_image
else
    judge_target
    confirm
fi
persist_bytes=$(((bytes - persist_at - TAIL) / MIB * MIB))
progress=(status=none)
[ ! -t 2 ] || progress=(status=progress)

cp --reflink=auto "$uki" "$work/BOOTX64.EFI"
# Times go into the FAT; mtools takes this one for "now".
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1767225600}" TZ=UTC
touch -d "@$SOURCE_DATE_EPOCH" "$work/BOOTX64.EFI"
make_esp
[ -n "$made" ] || judge_again
uki="$work/BOOTX64.EFI"
writing=yes
step "taking the old partition table off $target ..."
forget
step "writing the EFI system partition ($((esp_used / MIB)) MB of $esp) ..."
write_at $ESP_AT "$work/esp" "$esp_used"
step "making the ext4 for /persist ($((persist_bytes / MIB)) MB) ..."
write_persist
step "reading back ..."
verify_contents
step "writing the partition table ..."
write_table
writing=no
tell_kernel
if [ -n "$made" ]; then
    chmod 644 "$made"
    # link fails if somebody made the file meanwhile
    ln "$made" "$given" 2>/dev/null || die "$given appeared while this ran: nothing was replaced."
    target="$given"
fi
step "done: $target boots the spine"
if [ "$kind" = disk ]; then
    note "boot the PC from it: its firmware's boot menu, UEFI entry"
else
    note "try it: scripts/boot-qemu.sh --efi $target"
fi
