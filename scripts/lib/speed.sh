# shellcheck shell=bash
# shellcheck disable=SC2054  # commas are QEMU's
# How much patience the spine needs here: a fixed piece of work, timed in QEMU under the accelerator that will be used.
#
# The work is a firmware of 67 bytes: it writes A to the serial port, adds, stores, jumps and calls in a loop, writes B and ends QEMU.
# No kernel and no disk take part, so it costs each boot less than a second and is measured each time. By `as --32`:
#
#           cli; xorw %ax,%ax; movw %ax,%ds; movw %ax,%ss; movw $0x7c00,%sp
#           movw $0x3f8,%dx; movb $'A',%al; outb %al,%dx; movl $120000,%ecx
#   outer:  movw $0x8000,%si; movw $64,%bx
#   inner:  movw (%si),%ax; addw %bx,%ax; xorw %si,%ax; movw %ax,(%si); addw $34,%si; call f; decw %bx; jnz inner
#           decl %ecx; jnz outer
#           movb $'B',%al; outb %al,%dx; movw $0xf4,%dx; outb %al,%dx
#   h:      hlt; jmp h
#   f:      pushw %ax; rolw $3,%ax; movw %ax,%di; popw %ax; ret

SPEED_CODE='\xfa\x31\xc0\x8e\xd8\x8e\xd0\xbc\x00\x7c\xba\xf8\x03\xb0\x41\xee\x66\xb9\xc0\xd4\x01\x00\xbe\x00\x80\xbb\x40\x00\x8b\x04\x01\xd8'
SPEED_CODE+='\x31\xf0\x89\x04\x83\xc6\x22\xe8\x11\x00\x4b\x75\xef\x66\x49\x75\xe5\xb0\x42\xee\xba\xf4\x00\xee\xf4\xeb\xfd\x50\xc1\xc0\x03\x89'
SPEED_CODE+='\xc7\x58\xc3'
SPEED_RESET='\xea\x00\x00\x00\xf0' # where a processor begins, 16 bytes below the end: jump to the beginning
PATIENCE_5_US=290000               # what the work takes without KVM on the idle machine on which 5 was found to be right
SPEED_BOUND_S=30

# speed_us kvm|tcg: prints the microseconds that the work takes; fails where QEMU does not do it.
speed_us() {
    local folder machine=(-accel tcg,thread=single -cpu max) begin end
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
