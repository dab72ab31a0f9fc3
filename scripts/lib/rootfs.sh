# shellcheck shell=bash
# shellcheck disable=SC2154 # inputs: open_build sets it
# $ROOTFS: pruned userland + the ghost root of scripts/rootfs + kernel modules + bay0.

finish_rootfs() {
    [ "$SOURCE" != alpine ] || settle_alpine
    prune_rootfs
    empty_etc_and_var
    add_skeleton
    add_modules
    add_hwclock
    add_vi
    add_udhcpc
    add_images
    add_personas
    add_filter
    add_bay0
}

# settle_alpine: what Alpine's packages leave to their scripts, none of which ran, and its /bin, /sbin and /lib merged
# into /usr as Debian's are, so that every path is the same in both images.
settle_alpine() {
    local path part
    # busybox's links: as its own list has them, wherever no other package has the name.
    while read -r path; do
        [ -e "$ROOTFS/$path" ] || [ -L "$ROOTFS/$path" ] || { mkdir -p "$ROOTFS/${path%/*}"; ln -s /bin/busybox "$ROOTFS/$path"; }
    done < "$ROOTFS/etc/busybox-paths.d/busybox"
    for part in bin sbin lib; do merge_usr "$part"; done
}

# merge_usr NAME: /NAME moves into /usr/NAME and becomes a link to it. A program beats a link to busybox.
merge_usr() {
    local from="$ROOTFS/$1" to="$ROOTFS/usr/$1" path name target
    [ ! -L "$from" ] || return 0
    mkdir -p "$to"
    while IFS= read -r path; do
        name="${path#"$from"/}"
        if [ -d "$path" ] && [ ! -L "$path" ]; then mkdir -p "$to/$name"; continue; fi
        if [ -L "$path" ]; then
            target="$(readlink "$path")"
            # from /bin, ../usr/lib is what ../lib is from /usr/bin
            case $target in ../usr/*) ln -sfn "../${target#../usr/}" "$path" ;; esac
        fi
        if [ -e "$to/$name" ] || [ -L "$to/$name" ]; then
            if is_applet "$path"; then continue; fi
            is_applet "$to/$name" || cmp -s "$path" "$to/$name" || die "/$1/$name and /usr/$1/$name are two files: /usr cannot be merged."
        fi
        mv -f "$path" "$to/$name"
    done < <(find "$from" -mindepth 1)
    rm -rf "$from"
    ln -s "usr/$1" "$from"
}

# is_applet PATH: a link to busybox.
is_applet() { [ -L "$1" ] && case $(readlink "$1") in */busybox) ;; *) false ;; esac; }

# prune_rootfs: takes out what lib/prune.txt (Debian) or lib/prune-alpine.txt names.
prune_rootfs() {
    local glob path list=prune.txt
    [ "$SOURCE" != alpine ] || list=prune-alpine.txt
    while read -r glob; do
        for path in "$ROOTFS"/$glob; do # unquoted: it is a glob
            rm -rf -- "$path"
        done
    done < <(names_in "$TOP/scripts/lib/$list")
    # Only the mappers of user ids may gain rights; everybody else on the spine has them.
    find "$ROOTFS" -type f -perm /6000 ! -name newuidmap ! -name newgidmap -exec chmod a-s {} +
    # No maintainer script ran, so no alternatives were set.
    [ "$SOURCE" = alpine ] || ln -sfn mawk "$ROOTFS/usr/bin/awk"
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
    "$TOP/scripts/lib/identity.py" --version "$BAY0_VERSION" --source "$SOURCE" --flavor "$FLAVOR" --epoch "$SOURCE_DATE_EPOCH" \
        --inputs "$inputs" --packages "$WORK/packages.tsv" "$TOP/scripts/rootfs/etc/os-release" >"$WORK/os-release" ||
        die "the image's os-release could not be made."
    cat "$WORK/os-release" >"$ROOTFS/etc/os-release"
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
    [ ! -d "$WORK/kernel/firmware" ] || cp -a "$WORK/kernel/firmware/." "$ROOTFS/usr/lib/firmware/"
}

# add_hwclock: from Alpine's busybox, because no package here brings it; Alpine's own root has it already.
add_hwclock() {
    local path="$ROOTFS/usr/sbin/hwclock"
    [ -e "$path" ] || [ -L "$path" ] || ln -s ../lib/stage0/busybox "$path"
}

# add_vi: an editor for `bay0 persona edit`, from Alpine's busybox likewise.
add_vi() {
    local path="$ROOTFS/usr/bin/vi"
    [ -e "$path" ] || [ -L "$path" ] || ln -s ../lib/stage0/busybox "$path"
}

# add_udhcpc: the DHCP client of sys://net, from Alpine's busybox likewise.
add_udhcpc() {
    local path="$ROOTFS/usr/sbin/udhcpc"
    [ -e "$path" ] || [ -L "$path" ] || ln -s ../lib/stage0/busybox "$path"
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

# add_filter: the system calls that personas and system tenants may make.
add_filter() {
    local kind
    mkdir -p "$ROOTFS/usr/share/spine-seccomp"
    for kind in persona tenant; do
        "$TOP/scripts/lib/seccomp.py" "$kind" "$ROOTFS/usr/share/containers/seccomp.json" "$ROOTFS/usr/share/spine-seccomp/$kind.json" ||
            die "the system call filter of a $kind could not be made of podman's default."
    done
}

# add_bay0: the frozen folder, its words for bash (/etc/bash.bashrc loads them at the first Tab), and its name as init; /usr/bin/bay0 is in the skeleton.
add_bay0() {
    rm -rf "$ROOTFS/usr/lib/bay0"
    cp -r "$WORK/out/bay0" "$ROOTFS/usr/lib/bay0"
    chmod -R u=rwX,go=rX "$ROOTFS/usr/lib/bay0"
    rm -f "$ROOTFS/usr/sbin/init"
    ln -s ../lib/bay0/bay0 "$ROOTFS/usr/sbin/init"
    install -D -m 644 "$WORK/completion.bash" "$ROOTFS/usr/share/bash-completion/completions/bay0"
    write_manifest image > "$ROOTFS/usr/lib/bay0/manifest.json"
}
