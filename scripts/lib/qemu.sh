# shellcheck shell=bash
# shellcheck disable=SC2154,SC2054  # the variables are boot-qemu.sh's options; commas are QEMU's
# The pieces of QEMU's command line, and the two ways to run it.

QEMU=()
TMP=""

# choose_accel auto|kvm|tcg: prints kvm or tcg. A /dev/kvm that opens on a processor
# without vmx or svm hangs its guests for ever, so both must be there.
choose_accel() {
    local works=no
    if grep -qEw 'vmx|svm' /proc/cpuinfo && ( : <>/dev/kvm ) 2>/dev/null; then works=yes; fi
    case $1 in
        tcg) echo tcg ;;
        kvm) [ "$works" = yes ] || die "--accel kvm: KVM does not work here (no vmx or svm, or no access to /dev/kvm): use --accel tcg."
            echo kvm ;;
        auto) if [ "$works" = yes ]; then echo kvm; else echo tcg; fi ;;
        *) usage_error "--accel takes auto, kvm or tcg, not '$1'." ;;
    esac
}

# qemu_machine kvm|tcg: processor, memory, watchdog; no network, ever.
qemu_machine() {
    QEMU=(qemu-system-x86_64 -nodefaults -no-user-config -m "$mem" -nic none -rtc base=utc)
    if [ "$1" = kvm ]; then
        QEMU+=(-accel kvm -cpu host -smp 2)
    else
        # thread=multi lets this kernel panic at random while it patches its own text. Without ERMS the kernel copies words in
        # place of `rep movsb`, which TCG runs byte by byte: what starts programs takes half the time.
        QEMU+=(-accel tcg,thread=single -cpu max,-erms -smp 1)
        # On a busy host the timer may not tick while the kernel tries it out, and it panics ("IO-APIC + timer
        # doesn't work!"): QEMU's works, so it need not be tried (Documentation/admin-guide/kernel-parameters.txt).
        words+=" no_timer_check"
    fi
    QEMU+=(-device i6300esb -action watchdog=reset)
}

# ON_ERROR: a write that fails here fails in the guest too. QEMU's default for a full host is to stop the whole guest, without a word.
ON_ERROR="werror=report"

# qemu_disk PATH|none: the persist disk as /dev/vda.
qemu_disk() {
    [ "$1" != none ] || return 0
    local file="${1//,/,,}"
    QEMU+=(-drive "file=$file,format=raw,if=none,id=persist,$ON_ERROR" -device virtio-blk-pci,drive=persist,id=disk)
    warn_of_growth "$1"
}

# warn_of_growth PATH: a sparse disk takes its room while the spine runs.
warn_of_growth() {
    [ -f "$1" ] || return 0
    local more free
    more=$((($(stat -c '%s - %b * %B' "$1")) >> 20))
    free="$(df -Pm "$1" | awk 'NR == 2 { print $4 }')"
    [ "$more" -le "$free" ] || note "$1 may take $more MB more and $free MB are free there: if they run out, the spine's disk fails"
}

# choose_patience: how many times longer bay0 waits than on the machine its bounds are for, see speed.sh.
choose_patience() {
    # of a guest whose clock counts its own instructions no slowness of ours is to be seen
    [[ -n $patience || " ${extra[*]} " != *" -icount "* ]] || patience=5
    [ -n "$patience" ] || [[ $append == *bay0.patience=* ]] || patience="$(measured_patience "$accel")"
    [ -z "$patience" ] || [ "$patience" = 1 ] || words+=" bay0.patience=$patience"
}

# start_direct: QEMU itself loads kernel and image; the persist disk is a file of its own.
start_direct() {
    [ -z "$secure_boot$bus" ] || usage_error "--secure-boot and --bus belong to --efi."
    [ -f "$kernel" ] || die "there is no kernel at $kernel: build it with scripts/mkspine.sh."
    [ -f "$image" ] || die "there is no image at $image: build it with scripts/mkspine.sh."
    if [ -z "$persist" ]; then
        persist="$TOP/persist.img"
        [ -e "$persist" ] || die "there is no persist disk at $persist: make one with scripts/mkpersist.sh, or boot with --persist none."
    fi
    # Anything with a colon is QEMU's own notation (nbd:..., json:...): QEMU will judge it.
    [[ $persist == none || $persist == *:* ]] || [ -e "$persist" ] ||
        die "there is no persist disk at $persist: make one with scripts/mkpersist.sh $persist"
    [ "$with_exec" = no ] || words+=" bay0.exec"
    # without a terminal nobody answers the console's question for its size, and it would stand in the output
    [ "$with_exec" = no ] && [ -t 0 ] && [ -t 1 ] || words+=" bay0.terminal=off"
    choose_patience
    qemu_machine "$accel"
    qemu_disk "$persist"
    QEMU+=(-kernel "$kernel" -initrd "$image" -append "$words${append:+ $append}")
}

# make_tmp: one folder for what QEMU needs, gone on every way out.
make_tmp() {
    [ -z "$TMP" ] || return 0
    TMP="$(mktemp -d)"
    trap 'end_exec' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# choose_display: a window where there is a display and QEMU can draw one; else VNC on a socket, which only this user may open.
choose_display() {
    local kind socket="$TOP/build/screen.vnc"
    for kind in gtk sdl; do
        if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ] && qemu-system-x86_64 -display help 2>/dev/null | grep -qx "$kind"; then
            QEMU+=(-display "$kind")
            return
        fi
    done
    grep -q -- '^-vnc' <<<"$(qemu-system-x86_64 -help)" ||
        die "there is no display, and this QEMU has no VNC: take --screenshot FILE."
    mkdir -p "$TOP/build"
    rm -f "$socket"
    umask 077
    QEMU+=(-display "vnc=unix:${socket//,/,,}")
    note "there is no display here, or QEMU has no windows (qemu-system-gui of Debian has them): the screen is at a VNC socket. To look:"
    note "  vncviewer $socket"
    note "  ssh -L 5907:$socket $(uname -n)   and, while that runs,   vncviewer localhost:5907"
}

# expect_screenshot: a port by which the guest says that its command has ended and waits for its picture to be taken, and who takes it.
expect_screenshot() {
    mkfifo "$TMP/shot.in" "$TMP/shot.out"
    QEMU+=(-qmp "unix:$TMP/qmp,server=on,wait=off"
        -chardev "pipe,id=screenshot,path=$TMP/shot" -device virtserialport,chardev=screenshot,name=bay0.screenshot)
    (
        read -r _ <"$TMP/shot.out" || exit 0
        "$LIB/screenshot.py" "$TMP/qmp" "$screenshot" 2>"$TMP/shot.err" && : >"$TMP/shot.taken"
        echo taken >"$TMP/shot.in"
    ) </dev/null 3>&- 4>&- &
    SHOT_PID=$!
}

# boot_console: the serial console is this terminal.
boot_console() {
    local run=()
    if [ "$gui" = yes ]; then choose_display; else QEMU+=(-display none); fi
    QEMU+=(-chardev stdio,id=console,mux=on,signal=off -serial chardev:console -mon chardev=console
        "${extra[@]}")
    [ -z "$timeout" ] || run=(timeout --foreground --kill-after=5 "$timeout")
    note "booting ($accel, patience ${patience:-as given}); Ctrl-A X ends QEMU, \`bay0 poweroff\` turns the spine off"
    local status=0
    "${run[@]}" "${QEMU[@]}" || status=$?
    [ "$status" -ne 124 ] || { echo "$PROG: time ran out after $timeout seconds; QEMU was ended." >&2; exit 124; }
    [ "$status" -eq 0 ] || die "QEMU ended with status $status, see its message above."
}

# boot_exec: headless; the guest's half is scripts/rootfs/usr/lib/bay0-exec/run.
boot_exec() {
    timeout="${timeout:-120}"
    make_tmp
    if [ "$command" = - ]; then cat >"$TMP/command"; else printf '%s\n' "$command" >"$TMP/command"; fi
    open_outputs
    # A reset ends QEMU: the guest of an --exec never starts over.
    QEMU+=(-display none -monitor none -action reboot=shutdown
        -add-fd fd=3,set=1,opaque=output -add-fd fd=4,set=2,opaque=console
        -chardev file,id=console,path=/dev/fdset/2,append=on -serial chardev:console
        -fw_cfg "name=opt/bay0.exec,file=$TMP/command"
        -device virtio-serial-pci
        -chardev file,id=output,path=/dev/fdset/1,append=on
        -device virtserialport,chardev=output,name=bay0.output
        -chardev "file,id=status,path=$TMP/status"
        -device virtserialport,chardev=status,name=bay0.status)
    [ -z "$screenshot" ] || expect_screenshot
    QEMU+=("${extra[@]}")
    timeout --kill-after=5 "$timeout" "${QEMU[@]}" </dev/null 2>"$TMP/qemu.err" &
    QEMU_PID=$!
    local status=0
    wait "$QEMU_PID" || status=$?
    QEMU_PID=""
    close_outputs
    report_exec "$status"
}

# open_outputs: pipes on 3 (the command's output) and 4 (the console). QEMU sets its
# ends non-blocking; through pipes that cannot reach our caller's terminal or file.
open_outputs() {
    mkdir -p "$(dirname "$log")" && : >"$log" || die "cannot write the console log $log: name another with --log."
    exec 3> >(trap '' INT; exec cat)
    OUTPUT_PID=$!
    if [ "$show_console" = yes ]; then
        exec 4> >(trap '' INT; exec tee -i "$TMP/console" "$log" >&2 3>&-)
    else
        exec 4> >(trap '' INT; exec tee -i "$TMP/console" >"$log" 3>&-)
    fi
    CONSOLE_PID=$!
}

# close_outputs: ends both pipes and waits until everything has come out of them.
close_outputs() {
    exec 3>&- 4>&-
    wait "$OUTPUT_PID" "$CONSOLE_PID" 2>/dev/null || true
}

# end_exec: on every way out; a QEMU that still runs is ended by its pid.
end_exec() {
    [ -z "${QEMU_PID:-}" ] || kill "$QEMU_PID" 2>/dev/null || true
    [ -z "${SHOT_PID:-}" ] || kill "$SHOT_PID" 2>/dev/null || true
    rm -rf "$TMP"
}

say_no_picture() { echo "$PROG: no picture was taken: $(cat "$TMP/shot.err" 2>/dev/null || echo "the guest's command did not end")" >&2; }

# report_exec QEMU_STATUS: exits with the guest's status, or 124, or 125.
report_exec() {
    local answer
    if [ -n "$screenshot" ]; then
        if [ -e "$TMP/shot.taken" ]; then note "the screen is in $screenshot"; else say_no_picture; fi
    fi
    if [ "$1" -eq 124 ] || [ "$1" -eq 137 ]; then
        echo "$PROG: time ran out after $timeout seconds; QEMU was ended. The console is in $log." >&2
        exit 124
    fi
    answer="$(sed -n 's/^exit \([0-9]\{1,3\}\)$/\1/p' "$TMP/status" 2>/dev/null | tail -n 1)"
    [ -z "$answer" ] || exit "$answer"
    answer="$(sed -n 's/^killed \([0-9]\{1,3\}\)$/\1/p' "$TMP/status" 2>/dev/null | tail -n 1)"
    if [ -n "$answer" ]; then
        echo "$PROG: the shell of --exec was killed in the guest; the console is in $log." >&2
        exit "$answer"
    fi
    if [ "$1" -ne 0 ]; then
        cat "$TMP/qemu.err" >&2
        echo "$PROG: QEMU ended with status $1 before the command could report one." >&2
    else
        echo "$PROG: the spine ended without the command's status. The console ($log) ends with:" >&2
        tail -n 30 "$TMP/console" >&2
    fi
    exit 125
}
