# shellcheck shell=bash
# shellcheck disable=SC2154  # the variables are those of inputs.sh and of the scripts that source this
# What the makers of image archives (mkai.sh, mkask.sh) share.

# Files in these images carry this time, not the last commit's: the same inputs give the same image at every commit, and
# podman on the spine then finds that it has it. 1 January 2026.
IMAGE_EPOCH=1767225600

# debian_tree NAME LIST: the packages of a list, unpacked in build/cache; prints the directory.
debian_tree() {
    local dir hooks=()
    dir="$CACHE/$1-$(cat "$2" | sha256sum | cut -c1-12)"
    if [ ! -d "$dir" ]; then
        step "fetching Debian's $(names_in "$2" | paste -sd' ') ..."
        rm -rf "$dir.part"
        # Needed on Debian 12; later versions of mmdebstrap merge /usr by themselves.
        [ ! -d /usr/share/mmdebstrap/hooks/merged-usr ] || hooks=(--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr)
        run_mmdebstrap "$dir.part" --variant=extract "${hooks[@]}" --include="$(names_in "$2" | paste -sd,)"
        mv "$dir.part" "$dir"
    fi
    echo "$dir"
}

# begin_image: the lock, a work directory that is removed however this ends, and root.
begin_image() {
    umask 022
    export LC_ALL=C
    mkdir -p "$CACHE"
    exec 9>"$BUILD/.lock"
    flock -n 9 || { note "another build is running in this checkout: waiting for it"; flock 9; }
    WORK="$(mktemp -d "$BUILD/image.XXXXXX")"
    trap 'rm -rf "$WORK"' EXIT
}

# publish_image FILE NAME: the finished archive in WORK gets its name; sizes and digest are said.
publish_image() {
    give_back "$WORK/image.tar" "$BUILD"
    mv -f "$WORK/image.tar" "$1"
    step "done: ${1#"$TOP"/} ($(($(stat -c %s "$1") / 1000000)) MB, $2)"
    note "sha256: $(sha256sum "$1" | cut -c1-64)"
}
