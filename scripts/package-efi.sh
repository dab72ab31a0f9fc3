#!/usr/bin/env bash
# Usage: scripts/package-efi.sh [OPTION...]
#
# Joins kernel, image and command line into one program that a PC's firmware starts by
# itself: build/spine.efi, a unified kernel image (UKI). scripts/genesis-flash.sh puts it
# on a disk. build/spine.efi.json says what is in it.
#
#   --append WORDS     more words at the end of the command line (bay0.patience=5 for a
#                      machine emulated without KVM)
#   --cmdline WORDS    another command line altogether
#   --key K --cert C   sign it with your key (PEM), for Secure Boot
#   --microcode FILE   CPU microcode to load first: intel-ucode.img, amd-ucode.img; may be
#                      repeated
#   --kernel F         default ./vmlinuz
#   --image F          default ./build/spine.img
#   --manifest F       must name the digests of kernel and image, so that no two builds are
#                      mixed (default ./build/spine.manifest.json; `none`: not asked)
#   --stub F           systemd's stub (default where Debian and Alpine have it)
#   --output F         default ./build/spine.efi
#   --show FILE        say what FILE is made of (JSON), and make nothing
#
# The same inputs give the same bytes; a signature holds the time it was made, so a signed
# file differs (sbattach --remove takes it off).
#
# The command line is fixed: it is part of the file, and /persist is found by its label,
# SPINE-PERSIST, on whatever disk it is. What that protects:
#   without Secure Boot  Only against mistakes: kernel, image and words cannot be mixed and
#                        there is no file to edit. Whoever can write the disk, boot another
#                        one, or reach the firmware's boot entries can replace all of it,
#                        and words given by a boot entry (with genesis-flash.sh's loader: by
#                        BGENV.DAT) take the place of ours.
#   with Secure Boot     The firmware starts only what carries a signature it trusts, so
#                        kernel, image and words are as you signed them, and words from a
#                        boot entry or BGENV.DAT are ignored. Only as good as: your keys
#                        being the only ones enrolled, a firmware password, and the signing
#                        key kept off the machine. An older file with a good signature still
#                        starts. The loader wants a signature too: genesis-flash.sh --key.
#   never                /persist is neither signed nor encrypted, and the spine's console
#                        is a root shell: see docs/THREATMODEL.md.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/host-tools.sh
. "$LIB/host-tools.sh"

# tty0 for a machine with a screen; the last one is /dev/console: serial first, wherever there is a port.
# usb-storage waits a second for slow readers of cards, and a boot from a stick would always be dirty first.
# What a kernel does not get over is a panic, and a panic a reboot: a candidate must not stay in it, and a good spine is better off anew.
# A soft lockup counts after two minutes (twice watchdog_thresh): 20 s are what a virtual machine on a busy host may be without a processor.
cmdline="console=tty0 console=ttyS0,115200 loglevel=4 psi=1 panic=10 oops=panic softlockup_panic=1 watchdog_thresh=60 watchdog.stop_on_reboot=0 usb-storage.delay_use=0"
append=""
key=""
cert=""
microcode=()
kernel="$TOP/vmlinuz"
image="$TOP/build/spine.img"
manifest="$TOP/build/spine.manifest.json"
stub=""
output="$TOP/build/spine.efi"
while [ $# -gt 0 ]; do
    case $1 in
        --append) need_value "$@"; append="$2"; shift ;;
        --cmdline) need_value "$@"; cmdline="$2"; shift ;;
        --key) need_value "$@"; key="$2"; shift ;;
        --cert) need_value "$@"; cert="$2"; shift ;;
        --microcode) need_value "$@"; microcode+=(--microcode "$2"); shift ;;
        --kernel) need_value "$@"; kernel="$2"; shift ;;
        --image) need_value "$@"; image="$2"; shift ;;
        --manifest) need_value "$@"; manifest="$2"; shift ;;
        --stub) need_value "$@"; stub="$2"; shift ;;
        --output) need_value "$@"; output="$2"; shift ;;
        --show) need_value "$@"; exec python3 "$LIB/mkuki.py" show "$2" ;;
        -h | --help) help_from "$0"; exit 0 ;;
        *) usage_error "unknown option $1." ;;
    esac
    shift
done
cmdline+="${append:+ $append}"

# find_stub: where Debian's systemd-boot-efi and Alpine's systemd-efistub put it.
find_stub() {
    local path
    for path in /usr/lib/systemd/boot/efi/linuxx64.efi.stub /usr/lib/gummiboot/linuxx64.efi.stub; do
        [ ! -f "$path" ] || { echo "$path"; return; }
    done
    die "systemd's stub is missing: install Debian's systemd-boot-efi or Alpine's systemd-efistub, or name it with --stub."
}

# sign FROM TO: and look whether the signature is the certificate's.
sign() {
    sbsign --key "$key" --cert "$cert" --output "$2" "$1" >"$work/sign.log" 2>&1 &&
        sbverify --cert "$cert" "$2" >>"$work/sign.log" 2>&1 || {
        cat "$work/sign.log" >&2
        die "it could not be signed with $key and $cert: are they a PEM key and its own certificate?"
    }
}

[ -z "$key$cert" ] || { [ -n "$key" ] && [ -n "$cert" ]; } || usage_error "--key and --cert belong together."
[[ $cmdline != *[!\ -~]* ]] || usage_error "the command line takes printable ASCII only."
[ ${#cmdline} -lt 2048 ] || usage_error "the command line is longer than the kernel's 2047 characters."
need_command python3 "install Debian's python3."
if [ -n "$key" ]; then
    need_command sbsign "install Debian's sbsigntool."
    for file in "$key" "$cert"; do [ -r "$file" ] || die "$file cannot be read."; done
fi
[ -f "$kernel" ] || die "there is no kernel at $kernel: build it with scripts/mkspine.sh."
[ -f "$image" ] || die "there is no image at $image: build it with scripts/mkspine.sh."
stub="${stub:-$(find_stub)}"
[ "$manifest" = none ] || [ -f "$manifest" ] || die "there is no manifest at $manifest: build with scripts/mkspine.sh, or say --manifest none."
mkdir -p "$(dirname "$output")" && work="$(mktemp -d "$output.XXXXXX")" || die "cannot write to $(dirname "$output")."
trap 'rm -rf "$work"' EXIT

step "joining $(basename "$kernel"), $(basename "$image") and the command line ..."
python3 "$LIB/mkuki.py" build --stub "$stub" --linux "$kernel" --initrd "$image" --osrel "$TOP/scripts/rootfs/etc/os-release" \
    --manifest "$manifest" --cmdline "$cmdline" "${microcode[@]}" --out "$work/spine.efi" || die "no UKI was made, see above."
if [ -n "$key" ]; then
    step "signing it ..."
    sign "$work/spine.efi" "$work/signed.efi"
    mv "$work/signed.efi" "$work/spine.efi"
fi
python3 "$LIB/mkuki.py" show "$work/spine.efi" >"$work/spine.efi.json"
chmod 644 "$work/spine.efi" "$work/spine.efi.json"
rm -f "$output.json"
mv "$work/spine.efi" "$output"
mv "$work/spine.efi.json" "$output.json"
signed="not signed: starts only where Secure Boot is off"
[ -z "$key" ] || signed="signed with $(basename "$key")"
step "done: $output ($(($(stat -c %s "$output") / 1000000)) MB), $signed"
note "command line: $cmdline"
note "sha256: $(sha256sum <"$output" | cut -c1-64)"
note "next: scripts/genesis-flash.sh DEVICE, or a disk image: scripts/genesis-flash.sh --size 4G disk.img"
