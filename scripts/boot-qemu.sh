#!/usr/bin/env bash
# Usage: scripts/boot-qemu.sh [OPTION...] [-- QEMU ARGS]
#
# Boots the spine in QEMU, serial console first. Without --exec the console is on this
# terminal: Ctrl-A X ends QEMU, Ctrl-A C opens its monitor.
#
#   --exec CMD       boot headless, run CMD (sh) as root in the spine once init is
#                    complete, print its output, power off; exit with CMD's status.
#                    124: time ran out. 125: the guest ended without a status.
#                    `--exec -` reads CMD from stdin, for one longer than an argument can be.
#   --persist PATH   the persist disk (default ./persist.img), or `none`
#   --append WORDS   more words for the kernel command line
#   --timeout S      end QEMU after S seconds (default 120 with --exec, else never)
#   --accel A        auto, kvm or tcg (default auto: KVM only where it really works)
#   --mem MB         memory (default 1024)
#   --patience N     multiply every bound of bay0 by N, 1 to 100 (default: measured, see OPERATIONS)
#   --measure        print the patience that fits this machine now, and boot nothing
#   --kernel F       default ./vmlinuz
#   --image F        default ./build/spine.img
#   --log FILE       with --exec, the serial console goes here (default build/console.log)
#   --show-console   with --exec, show the serial console on stderr as well
#   --screen         add a screen, a keyboard and a pointer (virtio), without a window
#   --gui            the same in a window; where there is no display, by VNC on the socket build/screen.vnc
#   --net            add a network card (virtio) with QEMU's user network: DHCP, a gateway, whatever this machine
#                    reaches. `bay0 net up` in the spine uses it; until then nobody does
#   --screenshot F   the same without a window, and a picture of it in F (.png or .ppm) at the end of
#                    --exec; without --exec once the screen is ready, and then the spine is turned off
#
# A disk that boots by itself (scripts/genesis-flash.sh), by UEFI firmware (Debian's ovmf):
#   --efi DISK       boot DISK; kernel, image, words and /persist are all on it. --exec then
#                    needs a UKI made with package-efi.sh --append bay0.exec
#   --bus BUS        how DISK is attached: virtio (default), usb, sata or nvme
#   --secure-boot V  with Secure Boot enforced and the keys of V, a file of OVMF variables;
#                    `snakeoil`: Debian's test keys, whose private half everybody has
#
# Whatever follows -- goes to QEMU unchanged and last. Nothing here needs root.
set -euo pipefail
LIB="$(dirname "$0")/lib"
# shellcheck source=lib/say.sh
. "$LIB/say.sh"
# shellcheck source=lib/qemu.sh
. "$LIB/qemu.sh"
# shellcheck source=lib/speed.sh
. "$LIB/speed.sh"
# shellcheck source=lib/qemu-efi.sh
. "$LIB/qemu-efi.sh"

persist=""
command=""
with_exec=no
append=""
timeout=""
gui=no
screen=no
net=no
screenshot=""
accel=auto
patience=""
measure=no
kernel="$TOP/vmlinuz"
image="$TOP/build/spine.img"
log="$TOP/build/console.log"
show_console=no
mem=1024
efi=""
bus=""
secure_boot=""
own=()
while [ $# -gt 0 ]; do
    case $1 in
        --persist) need_value "$@"; persist="$2"; own+=("$1"); shift ;;
        --exec) need_value "$@"; command="$2"; with_exec=yes; shift ;;
        --append) need_value "$@"; append="$2"; own+=("$1"); shift ;;
        --timeout) need_value "$@"; timeout="$2"; shift ;;
        --accel) need_value "$@"; accel="$2"; shift ;;
        --patience) need_value "$@"; patience="$2"; own+=("$1"); shift ;;
        --measure) measure=yes ;;
        --mem) need_value "$@"; mem="$2"; shift ;;
        --kernel) need_value "$@"; kernel="$2"; own+=("$1"); shift ;;
        --image) need_value "$@"; image="$2"; own+=("$1"); shift ;;
        --efi) need_value "$@"; efi="$2"; shift ;;
        --bus) need_value "$@"; bus="$2"; shift ;;
        --secure-boot) need_value "$@"; secure_boot="$2"; shift ;;
        --log) need_value "$@"; log="$2"; shift ;;
        --show-console) show_console=yes ;;
        --screen) screen=yes ;;
        --net) net=yes ;;
        --gui) gui=yes; screen=yes ;;
        --screenshot) need_value "$@"; screenshot="$2"; screen=yes; shift ;;
        -h | --help) help_from "$0"; exit 0 ;;
        --) shift; break ;;
        *) usage_error "unknown option $1." ;;
    esac
    shift
done
extra=("$@")

[[ $timeout =~ ^[1-9][0-9]*$|^$ ]] || usage_error "--timeout takes whole seconds, not '$timeout'."
[[ $mem =~ ^[1-9][0-9]*$ ]] || usage_error "--mem takes megabytes, not '$mem'."
if [ -n "$patience" ]; then
    [[ $patience =~ ^[1-9][0-9]?$|^100$ ]] || usage_error "--patience takes a whole number from 1 to 100, not '$patience'."
fi
if [ -n "$screenshot" ]; then
    [[ $screenshot == *.png || $screenshot == *.ppm ]] || usage_error "--screenshot takes a file that ends in .png or .ppm, not '$screenshot'."
    [ "$gui" = no ] || usage_error "--screenshot is taken without a window: leave out --gui."
    need_command python3 "it is in Debian's python3."
    [ "$with_exec" = yes ] || { command='bay0 screen --wait 120'; with_exec=yes; timeout="${timeout:-240}"; }
fi
[ "$gui$with_exec" != yesyes ] || usage_error "--exec runs without a window: take --screen, or --screenshot FILE."
need_command qemu-system-x86_64 "install Debian's qemu-system-x86, or let scripts/quickstart.sh do it."
accel="$(choose_accel "$accel")"
words="console=ttyS0,115200 loglevel=4 psi=1 panic=10 watchdog.stop_on_reboot=0"
if [ "$measure" = yes ]; then measured_patience "$accel"; exit 0; fi
if [ -n "$efi" ]; then start_efi; else start_direct; fi
[ "$net" = no ] || QEMU+=(-netdev "user,id=net" -device "virtio-net-pci,netdev=net")
[ "$screen" = no ] || QEMU+=(-device virtio-vga -device virtio-keyboard-pci -device virtio-tablet-pci)

if [ "$with_exec" = no ]; then
    boot_console
else
    boot_exec
fi
