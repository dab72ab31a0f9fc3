# shellcheck shell=bash
# The build root: a Debian trixie made for the freeze, so that no host's Python,
# mkfs.erofs or depmod decides what is in the image. Made once per set of pinned
# inputs, never changed afterwards, mounted read-only while something runs in it.

buildroot_dir() {
    local key
    key="$(cat "$LOCK/buildroot-packages.txt" "$LOCK/freeze.txt" "$LOCK/unit.txt" \
        "$TOP/scripts/lib/buildroot.sh" | sha256sum | cut -c1-12)"
    echo "$CACHE/buildroot-$key"
}

# ensure_buildroot: makes it if it is not there.
ensure_buildroot() {
    local dir part
    dir="$(buildroot_dir)"
    if [ -d "$dir" ]; then
        note "build root: reused"
        return
    fi
    need_network "the build root"
    part="$dir.part"
    rm -rf "$part"
    step "making the build root (Debian $SUITE, about a minute) ..."
    run_mmdebstrap "$part" --variant=apt --include="$(names_in "$LOCK/buildroot-packages.txt" | paste -sd,)"
    mkdir -p "$part"/{src,out,rootfs,wheels,wheels-unit}
    step "installing the pinned wheels into the build root ..."
    install_wheels "$part"
    # shellcheck disable=SC2016  # dpkg-query's own variables
    (cd "$part" && chroot . dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\n') > "$part/packages.tsv"
    mv "$part" "$dir"
}

# run_mmdebstrap DIR ARGS...: a Debian tree in DIR from the default mirror.
run_mmdebstrap() {
    local dir="$1" log
    shift
    log="$BUILD/mmdebstrap.log"
    mmdebstrap --mode=root "$@" "$SUITE" "$dir" >"$log" 2>&1 || {
        tail -n 15 "$log" >&2
        rm -rf "$dir"
        die "mmdebstrap failed (its log is build/mmdebstrap.log): check that Debian's mirror is reachable, then run this again."
    }
}

# install_wheels ROOT: two environments, /opt/freeze (what ships) and /opt/unit (with pytest).
install_wheels() {
    local freeze unit
    freeze="$(fetch_locked freeze "$LOCK/freeze.txt")"
    unit="$(fetch_locked unit "$LOCK/unit.txt")"
    cp "$freeze"/*.whl "$1/wheels/"
    cp "$freeze"/*.whl "$unit"/*.whl "$1/wheels-unit/"
    cp "$LOCK/freeze.txt" "$LOCK/unit.txt" "$1/opt/"
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot "$1" /bin/sh -eu <<'IN' >"$BUILD/wheels.log" 2>&1 ||
pip_into() {
    env=$1 wheels=$2; shift 2
    python3 -m venv "$env"
    "$env/bin/pip" install --no-cache-dir --no-index --find-links "$wheels" --require-hashes "$@"
}
pip_into /opt/freeze /wheels -r /opt/freeze.txt
pip_into /opt/unit /wheels-unit -r /opt/freeze.txt -r /opt/unit.txt
IN
        { tail -n 15 "$BUILD/wheels.log" >&2; die "the pinned wheels do not install in the build root (log: build/wheels.log)."; }
    rm -rf "$1/wheels" "$1/wheels-unit"
}

# in_buildroot [--ro|--rw HOSTDIR AT]... -- CMD...: CMD in the build root, whose own
# files are read-only, in a mount namespace of its own: nothing is left mounted,
# however this ends. AT is one of /src /out /rootfs. The environment is ours alone.
in_buildroot() {
    local binds=()
    while [ "$1" != -- ]; do
        binds+=("${1#--}" "$2" "$3")
        shift 3
    done
    shift
    unshare --mount --propagation private -- \
        bash "$TOP/scripts/lib/enter-buildroot.sh" "$(buildroot_dir)" "${binds[@]}" -- "$@"
}
