# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # the variables are those of inputs.sh and of the scripts that source this
# What the makers of image archives (mkai.sh, mkask.sh, mkcounter.sh, mkterminal.sh, mkaiclient.sh) share.

# Files in these images carry this time, not the last commit's: the same inputs give the same image at every commit, and
# podman on the spine then finds that it has it. 1 January 2026.
IMAGE_EPOCH=1767225600

# debian_tree NAME LIST: the packages of a list, unpacked in build/cache; prints the directory.
debian_tree() {
    local dir hooks=()
    dir="$CACHE/$1-$(sha256sum <"$2" | cut -c1-12)"
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

# image_options ARGS...: the words of a maker's command line; `out` is the archive to make, at first the default one.
image_options() {
    while [ $# -gt 0 ]; do
        case $1 in
            -o | --output) need_value "$@"; out="$2"; shift ;;
            --output=*) out="${1#*=}" ;;
            -h | --help) help_from "$0"; exit 0 ;;
            *) usage_error "unknown option $1." ;;
        esac
        shift
    done
    check_output "$out"
}

# check_output FILE: only an image archive is ever replaced.
check_output() {
    [ -d "$(dirname "$1")" ] || [ "$(dirname "$1")" = "$BUILD" ] || die "the directory $(dirname "$1") does not exist: make it first."
    [ ! -e "$1" ] || is_image_archive "$1" || die "$1 exists and is no image archive: name another file with -o."
}

# freeze_for_image ARGS...: PyInstaller in the build root over WORK/src, into WORK/out. /src/lib holds libraries, if there are any.
freeze_for_image() {
    in_buildroot --ro "$WORK/src" /src --rw "$WORK/out" /out -- env LD_LIBRARY_PATH=/src/lib \
        /opt/freeze/bin/pyinstaller --noconfirm --log-level WARN --distpath /out --workpath /tmp/freeze "$@" >"$BUILD/freeze-image.log" 2>&1 || {
        tail -n 20 "$BUILD/freeze-image.log" >&2
        die "PyInstaller could not freeze the program (its log is build/freeze-image.log)."
    }
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

# image_inputs ai|ask|counter|terminal: a hash over what goes into an image, so that quickstart.sh builds only what has changed.
image_inputs() {
    local files=(scripts/lib/{archive.py,image-build.sh})
    case $1 in
        ai) files+=(scripts/mkai.sh scripts/lib/{closure,packtree,check_rootfs}.py scripts/lock/{ai,ai-packages,freeze,buildroot-packages}.txt
            services/ai/serve.{py,spec}) ;;
        ask) files+=(scripts/mkask.sh scripts/lib/mkimage.py scripts/lock/alpine.txt personas/ask/ask) ;;
        counter) files+=(scripts/mkcounter.sh scripts/lib/packtree.py scripts/lock/counter-packages.txt personas/counter/counter.c) ;;
        terminal) files+=(scripts/mkterminal.sh scripts/lib/{closure,packtree,check_rootfs}.py scripts/lock/terminal-packages.txt
            personas/terminal/{foot.ini,fonts.conf,profile}) ;;
    esac
    (cd "$TOP" && hash_of "${files[@]}")
}

# publish_image FILE NAME: the finished archive in WORK gets its name; sizes and digest are said.
publish_image() {
    give_back "$WORK/image.tar" "$BUILD"
    mv -f "$WORK/image.tar" "$1"
    step "done: ${1#"$TOP"/} ($(($(stat -c %s "$1") / 1000000)) MB, $2)"
    note "sha256: $(sha256sum "$1" | cut -c1-64)"
}
