#!/usr/bin/env bash
# Makes the Docker image that the tests build their node and algorithm images from, without any image registry:
# debootstrap writes a minimal Debian 12 with Python, docker import makes it an image. Needs root; about a minute.
#
#   scripts/docker-base.sh            makes $V6LF_BASE_IMAGE unless it is there already; prints its name
#   scripts/docker-base.sh --again    makes it in any case
#
# The name begins with an address of this machine where nothing listens: a vantage6 node always tries to pull an
# image before it uses it, the pull is then refused at once, and the local image is used.
set -euo pipefail

image=${V6LF_BASE_IMAGE:-127.0.0.1:5999/v6lf-base:bookworm}

if [ "${1:-}" != --again ] && docker image inspect "$image" >/dev/null 2>&1; then
    echo "$image"
    exit 0
fi
if [ "$(id -u)" != 0 ]; then
    echo "debootstrap needs root; or make an image of Debian 12 with python3, python3-venv and pip yourself, and tag it $image" >&2
    exit 1
fi
command -v debootstrap >/dev/null || { echo "debootstrap is not here (apt-get install debootstrap)" >&2; exit 1; }

# not /tmp: often mounted nodev, where debootstrap refuses to work
root=$(mktemp -d "${V6LF_BASE_TMP:-/var/tmp}/v6lf-base.XXXXXX")
log=$root.log
cleanup() {
    local status=$?
    [ "$status" = 0 ] || { echo "docker-base.sh failed; the last lines of debootstrap:" >&2; tail -n 15 "$log" >&2 || true; }
    # debootstrap may leave these mounted when it is interrupted: never remove through them
    umount "$root/proc" "$root/sys" 2>/dev/null || true
    rm -rf --one-file-system "$root" "$log"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

echo "Making $image (debootstrap, about a minute)" >&2
debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" >"$log" 2>&1
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

# Behind a proxy that has its own certificate authority, pip inside needs that authority too.
if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    cp /usr/local/share/ca-certificates/*.crt "$root/usr/local/share/ca-certificates/"
    chroot "$root" update-ca-certificates >>"$log" 2>&1
fi

# pip of Debian trusts only its own bundle and refuses to install outside a venv: both are in order in an image for tests
tar -C "$root" --one-file-system -c . | docker import \
    --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1' \
    --change 'CMD ["python3"]' - "$image" >/dev/null
echo "$image"
