# shellcheck shell=bash
# shellcheck disable=SC2054  # commas are QEMU's
# How much patience the spine needs here: a fixed piece of work, timed in QEMU under the accelerator that will be used.
#
# Without KVM QEMU translates a guest's code before it runs it, and a program that is loaded is mostly
# code that runs for the first time or a few times. So does this firmware: it makes 8 times 1,400 copies
# of a piece of code, writes A to the serial port, runs all of them one after the other 32 times, writes B
# and ends QEMU. Half of its time goes into the translation and half into running translated code that no
# cache of the processor holds. (A tight loop of a few instructions says nothing of either: by it one
# machine seemed as fast as another that loads the program in a third of the time.) No kernel and no disk
# take part, so it is measured at each boot. By `as --32`:
#
#   s:      cli; cld; xorw %ax,%ax; movw %ax,%ds; movw %ax,%ss; movw $0x7c00,%sp; movw $0x1000,%bx
#   fill:   movw %bx,%es; xorw %di,%di; movw $1400,%dx
#   copy:   movw $(t-s),%si; movw $(e-t),%cx; rep movsb %cs:(%si),%es:(%di); decw %dx; jnz copy
#           movb $0xcb,%al; stosb; addb $0x10,%bh; cmpb $0x90,%bh; jne fill
#           movw $0x3f8,%dx; movb $'A',%al; outb %al,%dx; movw $32,%bp
#   run:    movw $0x1000,%bx
#   go:     pushw %cs; pushw $(back-s); pushw %bx; pushw $0; lret
#   back:   addb $0x10,%bh; cmpb $0x90,%bh; jne go; decw %bp; jnz run
#           movw $0x3f8,%dx; movb $'B',%al; outb %al,%dx; movw $0xf4,%dx; outb %al,%dx
#   h:      hlt; jmp h
#   t:      movw (%si),%ax; addw %bx,%ax; xorw %si,%ax; movw %ax,(%si); addw $34,%si
#           andw $0x3ffe,%si; orw $0x8000,%si
#           testb $1,%al; jz 1f; rolw $3,%ax; movw %ax,%di
#   1:      pushw %ax; call 2f; popw %ax; cmpw %ax,%cx; jb 3f; incw %cx; jmp 3f
#   2:      imulw $5,%ax,%ax; subw %ax,%cx; ret
#   3:
#   e:

SPEED_CODE='\xfa\xfc\x31\xc0\x8e\xd8\x8e\xd0\xbc\x00\x7c\xbb\x00\x10\x8e\xc3\x31\xff\xba\x78\x05\xbe\x58'
SPEED_CODE+='\x00\xb9\x2e\x00\x2e\xf3\xa4\x4a\x75\xf4\xb0\xcb\xaa\x80\xc7\x10\x80\xff\x90\x75\xe2\xba\xf8'
SPEED_CODE+='\x03\xb0\x41\xee\xbd\x20\x00\xbb\x00\x10\x0e\x68\x40\x00\x53\x6a\x00\xcb\x80\xc7\x10\x80\xff'
SPEED_CODE+='\x90\x75\xf0\x4d\x75\xea\xba\xf8\x03\xb0\x42\xee\xba\xf4\x00\xee\xf4\xeb\xfd\x8b\x04\x01\xd8'
SPEED_CODE+='\x31\xf0\x89\x04\x83\xc6\x22\x81\xe6\xfe\x3f\x81\xce\x00\x80\xa8\x01\x74\x05\xc1\xc0\x03\x89'
SPEED_CODE+='\xc7\x50\xe8\x08\x00\x58\x39\xc1\x72\x09\x41\xeb\x06\x6b\xc0\x05\x29\xc1\xc3'
SPEED_RESET='\xea\x00\x00\x00\xf0' # where a processor begins, 16 bytes below the end: jump to the beginning
# What the work takes without KVM on the idle machine on which 5 is right (LOADED_MS of bay0/speed.py). To load the
# program takes 4.0 to 4.3 times as long there, by QEMU's processor time in five boots at loads of 8 to 10.
PATIENCE_5_US=560000
SPEED_BOUND_S=30

# speed_us kvm|tcg: prints the microseconds that the work takes; fails where QEMU does not do it.
speed_us() {
    local folder machine=(-accel tcg,thread=single -cpu max,-erms) begin end
    [ "$1" != kvm ] || machine=(-accel kvm -cpu host)
    folder="$(mktemp -d)" || return 1
    printf '%b' "$SPEED_CODE" >"$folder/firmware"
    truncate -s 65520 "$folder/firmware"
    printf '%b' "$SPEED_RESET" >>"$folder/firmware"
    truncate -s 65536 "$folder/firmware"
    # its exit status says nothing: the debug port ends it with one of its own
    { timeout --kill-after=1 "$SPEED_BOUND_S" qemu-system-x86_64 -nodefaults -no-user-config -m 16 -nic none "${machine[@]}" -smp 1 \
        -display none -monitor none -serial stdio -bios "$folder/firmware" -device isa-debug-exit,iobase=0xf4,iosize=1 \
        </dev/null 2>/dev/null || true; } | {
        IFS= read -r -N1 begin && begin="$EPOCHREALTIME" && IFS= read -r -N1 end && end="$EPOCHREALTIME" &&
            echo $((${end/[.,]/} - ${begin/[.,]/}))
    }
    local done=("${PIPESTATUS[@]}")
    rm -rf "$folder"
    return "${done[1]}"
}

# patience_for MICROSECONDS: prints the patience for a machine on which the work takes that long, 1 to 100.
patience_for() {
    local found=$((($1 * 5 + PATIENCE_5_US - 1) / PATIENCE_5_US))
    [ "$found" -ge 1 ] || found=1
    [ "$found" -le 100 ] || found=100
    echo "$found"
}

# measured_patience kvm|tcg: prints the patience that fits here and now; what was always used where that cannot be measured.
measured_patience() {
    local us
    if us="$(speed_us "$1")" && [ -n "$us" ]; then
        patience_for "$us"
    elif [ "$1" = kvm ]; then
        echo 1
    else
        echo 5
    fi
}
