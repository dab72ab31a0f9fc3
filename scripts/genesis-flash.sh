#!/usr/bin/env bash
# Usage: scripts/genesis-flash.sh [OPTION...] DEVICE|IMAGE
#
# DESTROYS what is on DEVICE (a whole disk, such as a USB stick) and makes a disk of it
# that boots the spine by itself on a PC with UEFI:
#   partition 1  SPINE-ESP, the EFI system partition, FAT32: the loader (EFI Boot Guard)
#                as EFI/BOOT/BOOTX64.EFI, and nothing else. The spine never mounts it
#   partition 2  SLOTA, FAT32: spine.efi (the UKI) and BGENV.DAT, what the loader does with
#                it: revision 1, OK. This is what boots
#   partition 3  SLOTB: the same spine.efi; revision 0, FAILED: not chosen. For a later one
#   partition 4  the rest, ext4 labelled SPINE-PERSIST: /persist
# With the path of an image file it does the same to that file, without root.
#
#   --size SIZE        make IMAGE as a new sparse file of this size (a number with K, M, G
#                      or T). A file of exactly this size is taken as it is
#   --uki F            what boots (default ./build/spine.efi, from scripts/package-efi.sh)
#   --slot SIZE        of partitions 2 and 3, each (default 512M)
#   --esp SIZE         of partition 1 (default 64M; with --one-slot 512M)
#   --watchdog S       the loader arms the hardware watchdog with S seconds (120 to 600)
#                      before it starts the kernel (default 0: not). Only for a machine
#                      whose watchdog the loader knows, or it starts nothing at all, and
#                      whose driver the image has, or it is reset each S seconds:
#                      Intel's TCO and QEMU's i6300esb
#   --loader F         another loader than the pinned one, which is fetched once (74 KB) and
#                      kept in build/cache
#   --key K --cert C   sign the loader with your key (PEM), as package-efi.sh signs the UKI:
#                      with Secure Boot the firmware asks both for a signature
#   --one-slot         no loader and no slots: partition 1 has the UKI as BOOTX64.EFI, and 2
#                      is /persist. For a disk under 1.2 GB, or a firmware on which the
#                      loader fails. Nothing leads back from a newer spine that is bad
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
# Needs sgdisk, mtools, e2fsprogs, python3, dpkg-deb, about twice the UKI's size in $TMPDIR;
# sbsign with --key; root only for what belongs to root.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/host-tools.sh
. "$LIB/host-tools.sh"
# shellcheck source=lib/inputs.sh
. "$LIB/inputs.sh"
# shellcheck source=lib/loader.sh
. "$LIB/loader.sh"
# shellcheck source=lib/persistfs.sh
. "$LIB/persistfs.sh"

MIB=$((1024 * 1024))
ESP_AT=$MIB          # bytes; where everybody begins the first partition
FAT32_LEAST=$((40 * MIB))
FAT32_MOST=$((32 * 1024 * MIB))
PERSIST_LEAST=$((64 * MIB))
TAIL=$MIB            # behind the last partition: the second GPT

size=""
uki="$TOP/build/spine.efi"
esp=""
slot=512M
one_slot=no
watchdog=0
loader=""
key=""
cert=""
yes=""
dry_run=no
given=""
while [ $# -gt 0 ]; do
    case $1 in
        --size) need_value "$@"; size="$2"; shift ;;
        --size=*) size="${1#*=}" ;;
        --uki) need_value "$@"; uki="$2"; shift ;;
        --esp) need_value "$@"; esp="$2"; shift ;;
        --slot) need_value "$@"; slot="$2"; shift ;;
        --watchdog) need_value "$@"; watchdog="$2"; shift ;;
        --loader) need_value "$@"; loader="$2"; shift ;;
        --key) need_value "$@"; key="$2"; shift ;;
        --cert) need_value "$@"; cert="$2"; shift ;;
        --one-slot) one_slot=yes ;;
        --yes-destroy) need_value "$@"; yes="$2"; shift ;;
        --dry-run) dry_run=yes ;;
        -h | --help) help_from "$0"; exit 0 ;;
        -*) usage_error "unknown option $1." ;;
        *) [ -z "$given" ] || usage_error "only one target, not '$given' and '$1'."; given="$1" ;;
    esac
    shift
done

# to_bytes OPTION SIZE LEAST WHY MOST: a whole number of MiB, from LEAST to MOST bytes.
to_bytes() {
    local bytes
    [[ $2 =~ ^[1-9][0-9]{0,11}[KMGT]?$ ]] || usage_error "$1 takes a number with K, M, G or T, not '$2'."
    bytes="$(numfmt --from=iec "$2")"
    [ $((bytes % MIB)) -eq 0 ] || usage_error "$1 takes whole megabytes, not '$2'."
    [ "$bytes" -ge "$3" ] || usage_error "$1 takes at least $(($3 / MIB))M, not '$2'${4:+: $4}."
    [ "$bytes" -le "$5" ] || usage_error "$1 takes at most $(($5 / MIB / 1024))G, not '$2'."
    echo "$bytes"
}

# check_uki: it is one, and fits with the filesystem's own needs beside it into the $1 that is for it, of $2 bytes.
check_uki() {
    [ -f "$uki" ] || die "there is no UKI at $uki: make it with scripts/package-efi.sh."
    python3 "$LIB/mkuki.py" show "$uki" >"$work/uki.json" || die "$uki is not a UKI: make one with scripts/package-efi.sh."
    grep -q '"\.linux"' "$work/uki.json" || die "$uki has no kernel in it: make one with scripts/package-efi.sh."
    [ $(($(stat -c %s "$uki") + 4 * MIB)) -le "$2" ] ||
        die "$uki ($(($(stat -c %s "$uki") / MIB)) MB) does not fit into a partition of $(($2 / MIB))M: give $1 more."
    uki_sum="$(sha256sum <"$uki")"
}

# signed FILE: it is a program for a firmware with a signature; whose, only the firmware can tell.
signed() { [[ "$(python3 "$LIB/mkuki.py" show "$1")" == *'"signed": true'* ]]; }

# take_loader: a copy of the loader that is meant, signed if there is a key, as $work/loader.efi.
take_loader() {
    [ -n "$loader" ] || loader="$(pinned_loader)" || exit 1
    [ -f "$loader" ] || die "there is no loader at $loader."
    python3 "$LIB/mkuki.py" show "$loader" >/dev/null || die "$loader is no loader."
    cp "$loader" "$work/loader.efi"
    if [ -n "$key" ]; then
        sbsign --key "$key" --cert "$cert" --output "$work/loader.efi" "$loader" >"$work/sign.log" 2>&1 &&
            sbverify --cert "$cert" "$work/loader.efi" >>"$work/sign.log" 2>&1 || {
            cat "$work/sign.log" >&2
            die "the loader could not be signed with $key and $cert: are they a PEM key and its own certificate?"
        }
    fi
    ! signed "$uki" || signed "$work/loader.efi" ||
        die "$uki is signed and the loader is not: with Secure Boot nothing would start. Give the same --key and --cert as to package-efi.sh."
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

# new_fat FILE BYTES AT LABEL SEED: an empty FAT32 that is to lie at AT, as a file, so that it is written in one go and can be
# compared. The same seed gives the same bytes.
new_fat() {
    truncate -s "$2" "$1"
    mformat -i "$1" -F -v "$4" -N "$(sha256sum <<<"$5" | cut -c1-8)" -T $(($2 / 512)) -h 255 -s 63 -H $(($3 / 512)) ::
}

# used FILE: how many bytes in front of it are in use; behind them the file was never written to.
used() {
    python3 -c 'import os, sys
file = os.open(sys.argv[1], os.O_RDONLY); at = 0
try:
    while True: at = os.lseek(file, os.lseek(file, at, os.SEEK_DATA), os.SEEK_HOLE)
except OSError: print(at)' "$1"
}

# make_esp FILE: the EFI system partition, with FILE as the one program in it.
make_esp() {
    new_fat "$work/esp" "$esp_bytes" $ESP_AT SPINE-ESP "$(sha256sum <"$1")"
    mmd -i "$work/esp" ::/EFI ::/EFI/BOOT
    mcopy -i "$work/esp" "$1" ::/EFI/BOOT/BOOTX64.EFI
}

# make_slot NAME AT OPTION...: the slot with its label, environment (slots.py's OPTIONs) and UKI, in the layout that an upgrade gives it.
make_slot() {
    local name="$1" at="$2"
    shift 2
    python3 -B "$LIB/slots.py" fat "$@" --uki "$uki" --bytes "$slot_bytes" --at "$at" "$name" "$work/$name" ||
        die "the slot $name could not be made, see above."
}

# make_fats: all of them, before anything is destroyed.
make_fats() {
    fats=("$ESP_AT esp")
    if [ "$one_slot" = yes ]; then make_esp "$uki"; return; fi
    make_esp "$work/loader.efi"
    make_slot SLOTA "$slot_a_at" --revision 1 --state ok --watchdog "$watchdog"
    make_slot SLOTB "$slot_b_at"
    fats+=("$slot_a_at SLOTA" "$slot_b_at SLOTB")
}

# write_fats: onto the target.
write_fats() {
    local at name
    for each in "${fats[@]}"; do
        read -r at name <<<"$each"
        step "writing $name ($((($(used "$work/$name") + MIB - 1) / MIB)) of $(($(stat -c %s "$work/$name") / MIB)) MB) ..."
        write_at "$at" "$work/$name" "$(used "$work/$name")"
    done
}

# check_room: for the FATs, which are made as files first.
check_room() {
    local needed copies=2 free
    [ "$one_slot" = no ] || copies=1
    needed=$((copies * $(stat -c %s "$uki") + 8 * MIB))
    free=$(($(df -Pk "$work" | awk 'NR == 2 { print $4 }') * 1024))
    [ "$free" -ge "$needed" ] ||
        die "${TMPDIR:-/tmp} has $((free / MIB)) MB free, and $((needed / MIB)) are needed: name another folder with TMPDIR."
}

# forget: no old table, and no old filesystem's signature in front. The far end first: while the near one
# stands, all is as it was; a table at the far end alone would be a half truth that tools like to repair.
forget() {
    dd if=/dev/zero of="$target" bs=$MIB count=$TAIL seek=$((bytes - TAIL)) iflag=count_bytes oflag=seek_bytes conv=notrunc,fsync status=none
    dd if=/dev/zero of="$target" bs=$MIB count=1 conv=notrunc,fsync status=none
}

write_persist() {
    # root owns the top, whoever runs this; a stick may hold anything, so inode tables are zeroed (at first use, by the kernel)
    mke2fs -q -F -t ext4 -L SPINE-PERSIST -O "$PERSIST_FEATURES" -m 1 -E "offset=$persist_at,root_owner=0:0" "$target" $((persist_bytes / 1024))k ||
        die "mke2fs failed on $target, see above. It has no partition table now: nothing on it is believed."
    [ "$kind" = image ] || blockdev --flushbufs "$target"
}

# verify_file AT PATH SUM: the file that the target has there is the one with this sha256sum.
verify_file() {
    [ "$(mcopy -i "$target@@$1" "::$2" - | sha256sum)" = "$3" ] ||
        die "$2 on $target is not what was to be written. It has no partition table now."
}

verify_contents() {
    local at name count
    for each in "${fats[@]}"; do
        read -r at name <<<"$each"
        count="$(used "$work/$name")"
        [ "$(read_back "$at" "$count" | sha256sum)" = "$(head -c "$count" "$work/$name" | sha256sum)" ] ||
            die "$target does not give back what was written to it: it is broken, or smaller than it says. It has no partition table now."
        if [ "$name" != esp ]; then
            verify_file "$at" /spine.efi "$uki_sum"
        elif [ "$one_slot" = yes ]; then
            verify_file "$at" /EFI/BOOT/BOOTX64.EFI "$uki_sum"
        else
            verify_file "$at" /EFI/BOOT/BOOTX64.EFI "$(sha256sum <"$work/loader.efi")"
        fi
    done
    e2fsck -fn "$target?offset=$persist_at" >"$work/e2fsck" 2>&1 || {
        tail -n 5 "$work/e2fsck" >&2
        die "the ext4 on $target is not whole when it is read back. It has no partition table now."
    }
}

# partition NAME TYPE AT BYTES: sgdisk's words for the next one.
partition() {
    number=$((number + 1))
    table+=(--new="$number:$(($3 / 512)):$((($3 + $4) / 512 - 1))" --typecode="$number:$2" --change-name="$number:$1")
}

# write_table: the very last; from here on the disk is believed.
write_table() {
    local number=0 table=()
    partition SPINE-ESP EF00 $ESP_AT "$esp_bytes"
    if [ "$one_slot" = no ]; then
        partition SLOTA 0700 "$slot_a_at" "$slot_bytes"
        partition SLOTB 0700 "$slot_b_at" "$slot_bytes"
    fi
    partition SPINE-PERSIST 8300 "$persist_at" "$persist_bytes"
    sgdisk --clear --set-alignment=2048 "${table[@]}" "$target" >"$work/sgdisk" 2>&1 &&
        sgdisk --verify "$target" >>"$work/sgdisk" 2>&1 && grep -q 'No problems found' "$work/sgdisk" || {
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
if [ "$one_slot" = yes ]; then
    [ "$slot$loader$key$cert$watchdog" = 512M0 ] || usage_error "--one-slot has no loader: leave out --slot, --loader, --key, --cert and --watchdog."
    esp="${esp:-512M}"
fi
[[ $watchdog =~ ^(0|1[2-9][0-9]|[2-5][0-9][0-9]|600)$ ]] || usage_error "--watchdog takes 120 to 600 seconds, or 0, not '$watchdog'."
[ -z "$key$cert" ] || { [ -n "$key" ] && [ -n "$cert" ]; } || usage_error "--key and --cert belong together."
[ -z "$key" ] || need_command sbsign "install Debian's sbsigntool."
esp_bytes="$(to_bytes --esp "${esp:-64M}" $FAT32_LEAST "a smaller one is no FAT32" $FAT32_MOST)"
slot_bytes="$(to_bytes --slot "$slot" $FAT32_LEAST "a smaller one is no FAT32" $FAT32_MOST)"
size_bytes=""
[ -z "$size" ] || size_bytes="$(to_bytes --size "$size" $MIB "" $((1 << 60)))"
slot_a_at=$((ESP_AT + esp_bytes))
slot_b_at=$((slot_a_at + slot_bytes))
persist_at=$((slot_b_at + slot_bytes))
[ "$one_slot" = no ] || persist_at=$slot_a_at
least=$((persist_at + PERSIST_LEAST + TAIL))
writing=no
made=""
work="$(mktemp -d)"
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
if [ "$one_slot" = yes ]; then check_uki --esp "$esp_bytes"; else check_uki --slot "$slot_bytes"; take_loader; fi
check_room
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

# Times go into the FAT; mtools takes this one for "now".
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1767225600}" TZ=UTC
make_fats
[ -n "$made" ] || judge_again
writing=yes
step "taking the old partition table off $target ..."
forget
write_fats
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
