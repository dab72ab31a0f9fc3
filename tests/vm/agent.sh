# The guest's end of harness.Vm.sh: runs one script after the other, as `boot-qemu.sh --exec` would run one.
# A request is a line "ID BASE64-OF-THE-SCRIPT", its answer a line "ID STATUS STDOUT STDERR" (base64, "=" if empty).
# "quit STATUS" ends it, and with it the spine.
for name in /sys/class/virtio-ports/*/name; do
    if [ "$(cat "$name")" = test.agent ]; then
        port=${name%/name}
        port=/dev/${port##*/}
    fi
done
[ -n "${port:-}" ] || { echo "no virtio port is named test.agent"; exit 99; }
mkdir -p /run/agent
cd /run/agent || exit 99
exec 3<>"$port"
while read -r id script <&3; do
    [ "$id" != quit ] || exit "$script"
    printf %s "$script" | base64 -d >script
    /bin/bash ./script >out 2>err </dev/null 3<&-
    printf '%s %s %s= %s=\n' "$id" "$?" "$(base64 -w0 <out)" "$(base64 -w0 <err)" >&3
done
