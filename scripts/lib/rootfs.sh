# shellcheck shell=bash
# $ROOTFS: pruned userland + the ghost root of scripts/rootfs + kernel modules + bay0.

finish_rootfs() {
    prune_rootfs
    empty_etc_and_var
    add_skeleton
    add_modules
    add_images
    add_personas
    add_bay0
}

# prune_rootfs: takes out what lib/prune.txt names.
prune_rootfs() {
    local glob path
    while read -r glob; do
        for path in "$ROOTFS"/$glob; do # unquoted: it is a glob
            rm -rf -- "$path"
        done
    done < <(names_in "$TOP/scripts/lib/prune.txt")
    # Only the mappers of user ids may gain rights; everybody else on the spine has them.
    find "$ROOTFS" -type f -perm /6000 ! -name newuidmap ! -name newgidmap -exec chmod a-s {} +
    # No maintainer script ran, so no alternatives were set.
    ln -sfn mawk "$ROOTFS/usr/bin/awk"
}

# empty_etc_and_var: /etc is ours but for a few files of the C library and e2fsprogs.
empty_etc_and_var() {
    local keep="$WORK/etc" name
    mkdir -p "$keep"
    for name in ld.so.conf ld.so.conf.d mke2fs.conf login.defs; do
        [ ! -e "$ROOTFS/etc/$name" ] || mv "$ROOTFS/etc/$name" "$keep/"
    done
    rm -rf "${ROOTFS:?}"/{etc,var,run,tmp,root,dev,proc,sys}
    mkdir -p "$ROOTFS"/{dev,proc,sys,run,persist,tmp,root,var/lib,var/cache}
    mv "$keep" "$ROOTFS/etc"
    ln -s /run "$ROOTFS/var/run"
    ln -s /tmp "$ROOTFS/var/tmp"
    ln -s /run/log "$ROOTFS/var/log"
    chmod 1777 "$ROOTFS/tmp"
    chmod 700 "$ROOTFS/root"
}

add_skeleton() {
    # Modes from the x bit alone: a checkout's umask must not reach the image.
    tar -C "$TOP/scripts/rootfs" --mode='u=rwX,go=rX' --owner=0 --group=0 -cf - . |
        tar -C "$ROOTFS" --keep-directory-symlink -xpf -
    chmod 600 "$ROOTFS/etc/shadow"
    ln -s /proc/self/mounts "$ROOTFS/etc/mtab"
    ln -s /run/resolv.conf "$ROOTFS/etc/resolv.conf"
    sed -i -e "s/@BAY0_VERSION@/$BAY0_VERSION/" -e "s/@SOURCE@/$SOURCE/" "$ROOTFS/etc/os-release"
}

# add_modules: all of the kernel's modules, with indexes made by the build root's depmod.
add_modules() {
    local release
    release="$(cat "$WORK/kernel/release")"
    mkdir -p "$ROOTFS/usr/lib/modules" "$ROOTFS/usr/lib/stage0"
    cp -a "$WORK/kernel/modules/$release" "$ROOTFS/usr/lib/modules/"
    in_buildroot --rw "$ROOTFS" /rootfs -- depmod -b /rootfs "$release" ||
        die "depmod could not index the kernel modules of $release."
    # Alpine's busybox and its C library: the rescue tools of stage 0, here as well.
    cp "$WORK/kernel/busybox" "$ROOTFS/usr/lib/stage0/busybox"
    cp "$WORK/kernel/ld-musl-x86_64.so.1" "$ROOTFS/usr/lib/ld-musl-x86_64.so.1"
}

# add_images: what personas can start from without a network; bay0 loads it into podman by the name in the index.
add_images() {
    local dir="$ROOTFS/usr/share/spine-images"
    mkdir -p "$dir"
    "$TOP/scripts/lib/mkimage.py" --name localhost/alpine:3.23 --epoch "$SOURCE_DATE_EPOCH" \
        --root "$WORK/kernel/root" --out "$dir/alpine-3.23.tar" ||
        die "the personas' base image could not be made of the Alpine root."
    echo '{"localhost/alpine:3.23": "alpine-3.23.tar"}' > "$dir/index.json"
}

# add_personas: the sample manifests, for `bay0 persona create NAME`.
add_personas() {
    local file name
    for file in "$TOP"/personas/*/persona.toml; do
        name="$(basename "$(dirname "$file")")"
        install -D -m 644 "$file" "$ROOTFS/usr/share/spine-personas/$name/persona.toml"
    done
}

# add_bay0: the frozen folder, and the two names that lead to it.
add_bay0() {
    rm -rf "$ROOTFS/usr/lib/bay0"
    cp -r "$WORK/out/bay0" "$ROOTFS/usr/lib/bay0"
    chmod -R u=rwX,go=rX "$ROOTFS/usr/lib/bay0"
    rm -f "$ROOTFS/usr/sbin/init" "$ROOTFS/usr/bin/bay0"
    ln -s ../lib/bay0/bay0 "$ROOTFS/usr/sbin/init"
    ln -s ../lib/bay0/bay0 "$ROOTFS/usr/bin/bay0"
    write_manifest image > "$ROOTFS/usr/lib/bay0/manifest.json"
}
