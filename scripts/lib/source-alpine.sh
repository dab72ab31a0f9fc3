# shellcheck shell=bash
# shellcheck disable=SC2153,SC2154 # CACHE, LOCK: inputs.sh; unverified, offline, container: mkspine.sh's options
# --from alpine: the canonical build, in a container of the pinned image. This file is the
# half outside: which engine, which image, which packages; lib/alpine-inside.sh is the other.
#
# A source has to leave
#   $ROOTFS                      the userland, packages unpacked
#   $WORK/packages.tsv           kind, name, version, arch, sha256 of each package
#   $WORK/build-packages.tsv     name, version, arch of what the build itself runs with
#   $WORK/kernel/                vmlinuz, release, modules/<release>/, busybox, ld-musl-x86_64.so.1, root/
# Every stage after that (stages.sh) is the same for both.

PACKAGE_CACHE="$CACHE/sha256" # each file by its own sha256

# check_image REF: by digest, or not at all.
check_image() {
    local digest="${1#*@sha256:}"
    case $1 in
        *@sha256:*) ;;
        *) usage_error "--image $1 is no digest: what a tag names can change. Give NAME@sha256:DIGEST." ;;
    esac
    case ${1%%@*} in
        "" | -* | *[!a-z0-9._/:-]*) usage_error "--image $1: there is no image name before the @." ;;
        */*) case ${1##*/} in *:*@*) usage_error "--image $1 has a tag as well: give the name and the digest alone." ;; esac ;;
        *:*) usage_error "--image $1 has a tag as well: give the name and the digest alone." ;;
    esac
    [ "${#digest}" -eq 64 ] && case $digest in *[!0-9a-f]*) false ;; esac ||
        usage_error "--image $1: a sha256 digest has 64 hex digits."
}

# image_name REF: podman resolves no short name without somebody to ask.
image_name() {
    case $1 in
        */*) echo "$1" ;;
        *) echo "docker.io/library/$1" ;;
    esac
}

# lock_gaps LOCK: how many packages lack a version or a checksum, and the first one's name.
lock_gaps() {
    sed 's/#.*//' "$1" | awk 'NF && ($2 == "-" || $4 == "-") { if (!n++) first = $1 } END { if (n) print n, first }'
}

# lock_complaint LOCK: why nothing can be built from this lock, or nothing.
lock_complaint() {
    local gaps
    [ -f "$1" ] || { echo "there is no lock file $1"; return; }
    gaps="$(lock_gaps "$1")"
    [ -z "$gaps" ] || echo "${1#"$TOP"/} has no checksum yet for ${gaps% *} packages (the first: ${gaps#* })"
}

# find_engine: podman or docker, whichever answers; $ENGINE says which.
find_engine() {
    local name
    for name in ${ENGINE:-podman docker}; do
        if command -v "$name" >/dev/null && timeout 20 "$name" version >/dev/null 2>&1; then ENGINE="$name"; return; fi
    done
    return 1
}

# image_is_here REF: the engine has it, under this very digest.
image_is_here() {
    timeout 30 "$ENGINE" image inspect --format '{{json .RepoDigests}}' "$(image_name "$1")" 2>/dev/null | grep -qF "@${1#*@}"
}

# why_not_alpine: the reason why the canonical build cannot run here, or nothing. What is cheap to see comes first.
why_not_alpine() {
    local why
    why="$(lock_complaint "$LOCK_FILE")"
    [ -z "$why" ] || [ "$unverified" = yes ] || { echo "$why"; return; }
    find_engine || { echo "neither podman nor docker answers here"; return; }
    image_is_here "$IMAGE" || { [ "$offline" = no ] && timeout 300 "$ENGINE" pull --quiet "$(image_name "$IMAGE")" >/dev/null 2>&1 && image_is_here "$IMAGE"; } ||
        echo "$ENGINE neither has $IMAGE nor can pull it"
}

# need_alpine: stops with that reason and the ways out.
need_alpine() {
    local why remedy="Build with --from registry, which needs neither an engine nor Alpine's repositories"
    why="$(lock_complaint "$LOCK_FILE")"
    if [ -n "$why" ] && [ "$unverified" = no ]; then
        die "$why: fill it in with scripts/lock/renew-alpine.sh where Alpine's repositories can be reached. $remedy, or take what they have today with --unverified-lock."
    fi
    [ "$container" = yes ] || return 0
    why="$(why_not_alpine)"
    [ -z "$why" ] || die "$why, so the canonical build cannot run. $remedy."
    find_engine
}

# rootless: the engine's root is the caller.
rootless() {
    [ "$(id -u)" -ne 0 ] || return 1
    case $ENGINE in
        *podman) ;;
        *) "$ENGINE" info --format '{{.SecurityOptions}}' 2>/dev/null | grep -q rootless ;;
    esac
}

# engine_run NETWORK CACHE-MODE WORD...: alpine-inside.sh in a fresh container. No network but for `fetch` and
# `resolve`, the checkout read-only, no rights beyond those of a root that unpacks files.
engine_run() {
    local network="$1" mode="$2" owner=0:0
    shift 2
    rootless || owner="${SUDO_UID:-$(id -u)}:${SUDO_GID:-$(id -g)}"
    "$ENGINE" run --rm --pull=never ${network:+--network "$network"} --user 0:0 --workdir / \
        --cap-drop all --cap-add chown --cap-add dac_override --cap-add fowner --cap-add fsetid --cap-add setfcap \
        --security-opt no-new-privileges --security-opt label=disable \
        --volume "$TOP:/spine:ro" --volume "$PACKAGE_CACHE:/cache:$mode" --volume "$WORK:/work:rw" \
        --env "OWNER=$owner" "${INSIDE_ENV[@]}" \
        "$(image_name "$IMAGE")" /bin/sh /spine/scripts/lib/alpine-inside.sh "$@"
}

# bare_run WORD...: --no-container: the same script, on the Alpine that this is.
bare_run() {
    local cache="$PACKAGE_CACHE" name
    for name in "${INSIDE_ENV[@]}"; do case $name in --env) ;; *) export "${name?}" ;; esac; done
    SPINE="$TOP" PACKAGES="$cache" WORK="$WORK" NO_CONTAINER=yes OWNER=0:0 /bin/sh "$LIB/alpine-inside.sh" "$@"
}

# inside NETWORK CACHE-MODE WORD...
inside() {
    if [ "$container" = yes ]; then engine_run "$@"; else shift 2; bare_run "$@"; fi
}

# fetch_packages: what the lock names and the cache does not have.
fetch_packages() {
    local missing
    missing="$(locked_files | while read -r sum name; do [ -f "$PACKAGE_CACHE/$sum" ] || echo "$name"; done)"
    if [ -z "$missing" ]; then note "Alpine packages: all in build/cache"; return; fi
    [ "$offline" = no ] ||
        die "--offline, and $(wc -l <<<"$missing") of the locked packages are not in build/cache: $(xargs <<<"$missing"). Build once without --offline."
    step "fetching $(wc -l <<<"$missing") Alpine packages ..."
    inside "$FETCH_NETWORK" rw fetch || die "not every locked package could be fetched (see above); what did arrive is kept in build/cache."
}

# locked_files: sha256 and file name of each package in $WORK/alpine-packages.txt that this flavor takes.
locked_files() {
    sed 's/#.*//' "$WORK/alpine-packages.txt" | awk -v skip="$([ "$FLAVOR" = vm ] && echo metal || echo vm)" '
        NF { n = split($5, sets, ","); for (i = 1; i <= n; i++) if (sets[i] != skip) { print $4, $1 "-" $2 ".apk"; break } }'
}

# resolve_lock: --unverified-lock: the repositories of today fill the gaps. Into build/, never into the checkout's lock.
resolve_lock() {
    note "UNVERIFIED: nobody has pinned the checksums of these packages. What Alpine's mirror signs today is taken,"
    note "UNVERIFIED: and the same command may give another image tomorrow. The result names its lock 'unverified'."
    [ "$offline" = no ] || die "--unverified-lock needs Alpine's repositories, --offline forbids them: choose one."
    step "resolving scripts/lock/alpine-packages.in ..."
    inside "$FETCH_NETWORK" rw resolve || die "Alpine's repositories could not be resolved (see above)."
    mv "$WORK/resolved.txt" "$WORK/alpine-packages.txt"
    cp "$WORK/alpine-packages.txt" "$BUILD/alpine-packages.unverified.txt"
}

# build_alpine: everything from the lock to the finished files in $WORK.
build_alpine() {
    local wheels logs where="in $IMAGE"
    mkdir -p "$PACKAGE_CACHE" && [ -w "$PACKAGE_CACHE" ] || die "$PACKAGE_CACHE cannot be written: it belongs to another user."
    cp "$LOCK_FILE" "$WORK/alpine-packages.txt"
    # What is not built in an image must not claim to be.
    [ "$container" = yes ] || { IMAGE="none: --no-container"; where="on this Alpine"; }
    INSIDE_ENV=(--env "FLAVOR=$FLAVOR" --env "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --env "BAY0_VERSION=$BAY0_VERSION" --env "IMAGE=$IMAGE"
        --env "UNVERIFIED=$unverified" --env "inputs=$inputs")
    [ "$unverified" = no ] || resolve_lock
    fetch_packages
    wheels="$(fetch_locked freeze-musl "$LOCK/freeze-musl.txt")"
    cp -r "$wheels" "$WORK/wheels"
    step "building $where, without a network ..."
    inside none ro build || die "the build $where failed (see above); nothing was changed."
    for logs in "$WORK"/build/*.log; do [ ! -f "$logs" ] || cp "$logs" "$BUILD/"; done
    for logs in vmlinuz spine.img spine.manifest.json spine.sbom.json; do
        [ -s "$WORK/$logs" ] || die "the build inside the container left no $logs."
    done
    rm -rf "$ROOTFS"
    mv "$WORK/rootfs" "$ROOTFS"
}
