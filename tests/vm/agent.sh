# The guest's end of harness.Vm.sh: runs one script after the other, as `boot-qemu.sh --exec` would run one.
# A request is a line "ID BASE64-OF-THE-SCRIPT", its answer a line "ID STATUS STDOUT STDERR" (base64, "=" if empty).
# A request "ID rpc JSON" goes to the control socket through one `bay0 rpc` that stays, its answer is "ID rpc JSON": no process is started for it.
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
talk() {
    if ! kill -0 "${rpc:-none}" 2>/dev/null; then
        exec 4<&- 5<&-
        rm -f requests answers
        mkfifo requests answers
        bay0 rpc --each <requests >answers 2>rpc.err 3<&- &
        rpc=$!
        exec 4>requests 5<answers
    fi
    trap '' PIPE
    printf '%s\n' "$1" >&4
    trap - PIPE
    IFS= read -r answer <&5 || answer=null
}
while read -r id script request <&3; do
    [ "$id" != quit ] || exit "$script"
    if [ "$script" = rpc ]; then
        answer=null
        talk "$request" 2>/dev/null
        printf '%s rpc %s\n' "$id" "$answer" >&3
        continue
    fi
    printf %s "$script" | base64 -d >script
    /bin/bash ./script >out 2>err </dev/null 3<&-
    printf '%s %s %s= %s=\n' "$id" "$?" "$(base64 -w0 <out)" "$(base64 -w0 <err)" >&3
done
