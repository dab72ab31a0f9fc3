# shellcheck shell=bash
# What the scripts know about archives of container images.

# is_image_archive FILE: a docker-archive (`docker save`, `podman save`) or an oci-archive, also a compressed one.
is_image_archive() {
    local names
    names="$(tar -tf "$1" 2>/dev/null | sed 's|^\./||')" || return 1
    grep -qx -e manifest.json -e oci-layout <<<"$names"
}
