#!/bin/bash
# Builds the emulated host for tests/svm/run.sh and prints the absolute path of its directory, the only
# line on standard output: vmlinuz, initrd.cpio and rootfs.erofs. run.sh has the theory of operation.
#
# SVM_KERNEL chooses the host's kernel package: linux-image-cloud-amd64 (default: 6.1, the oldest one
# that cloche supports) or, say, linux-image-6.12-cloud-amd64.
set -euo pipefail

BUILD_NAME=svm-host
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=../../images/lib.sh
. "$HERE/../../images/lib.sh"
# shellcheck source=../../images/debian.sh
. "$HERE/../../images/debian.sh"

EPOCH=2026-11-01
KERNEL_PACKAGE=${SVM_KERNEL:-linux-image-cloud-amd64}

# The shared libraries are what cloche and its tests link; the rest is what the e2e tests call.
PACKAGES=(
    libarchive13 libbpf1 libc-ares2 libcjson1 libmd0 libnghttp2-14 libnl-3-200 libnl-route-3-200
    libseccomp2 libssl3 libuv1 libwslay1 libzstd1 libcmocka0
    bash busybox-static ca-certificates curl e2fsprogs git iproute2 iputils-ping jq kmod openssl procps
    psmisc python3 strace tmux util-linux
)
# Loaded in the initrd, to reach the root file system, and after it, to be a host for cloche.
BOOT_MODULES=(virtio_pci virtio_blk virtio_console erofs overlay)
HOST_MODULES=(kvm-amd tun veth bridge loop sch_ingress sch_clsact cls_bpf act_bpf virtio_rng)

# The .deb is unpacked and not installed: nothing must happen to this machine's boot loader.
unpack_kernel() {
    local work=$1 root=$2 package=$KERNEL_PACKAGE real
    real=$(apt-cache depends "$package" 2>/dev/null | awk '/Depends: linux-image-/ { print $2; exit }')
    say "kernel ${real:=$package}"
    mkdir "$work/deb"
    (cd "$work/deb" && apt-get -q download "$real" >"$work/log" 2>&1) ||
        { cat "$work/log" >&2; die "cannot download $real; remedy: apt-get update"; }
    dpkg -x "$work"/deb/*.deb "$work/kernel"

    KERNEL_VERSION=$(cd "$work/kernel/lib/modules" && echo *)
    mkdir -p "$root/usr/lib/modules"
    mv "$work/kernel/lib/modules/$KERNEL_VERSION" "$root/usr/lib/modules/"
    chroot "$root" depmod "$KERNEL_VERSION"
}

# modules_of ROOT MODULE...: their files and those they need, in the order in which to load them. What is
# built in, or was called otherwise in another version, is passed over.
modules_of() {
    local root=$1 module
    shift
    for module in "$@"; do
        chroot "$root" modprobe -S "$KERNEL_VERSION" --show-depends "$module" 2>/dev/null || true
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# busybox and a handful of modules. The init scripts are not in it but come with each run, so that one
# can work on them without building anything.
make_initrd() {
    local work=$1 root=$2 out=$3 dir=$1/initrd file
    mkdir -p "$dir/bin" "$dir/lib" "$dir/dev" "$dir/proc" "$dir/sys"
    cp "$root/usr/bin/busybox" "$dir/bin/busybox"
    modules_of "$root" "${BOOT_MODULES[@]}" | while IFS= read -r file; do
        cp "$root/$file" "$dir/lib/"
        printf '%s\n' "${file##*/}"
    done >"$dir/lib/order"
    find "$dir" -exec touch -h -d "$EPOCH UTC" {} +
    (cd "$dir" && find . | LC_ALL=C sort | cpio -o -H newc --reproducible -R 0:0 --quiet) >"$out"
}

build() {
    local work=$1 out=$2 root=$1/root
    bootstrap "$work" "$root" minbase "$(IFS=,; printf '%s' "${PACKAGES[*]}")"
    unpack_kernel "$work" "$root"

    mkdir -p "$root/usr/lib/svm"
    modules_of "$root" "${HOST_MODULES[@]}" >"$root/usr/lib/svm/modules"
    # kvm-amd is what all this is for.
    grep -q /kvm-amd.ko "$root/usr/lib/svm/modules" || die "$KERNEL_PACKAGE has no kvm-amd"
    printf 'svm\n' >"$root/etc/hostname"
    printf '127.0.0.1\tlocalhost\n127.0.1.1\tsvm\n' >"$root/etc/hosts"
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb

    make_initrd "$work" "$root" "$out/initrd.cpio"
    cp "$work/kernel/boot/vmlinuz-$KERNEL_VERSION" "$out/vmlinuz"
    say "making the image"
    make_image "$root" "$out/rootfs.erofs" "$EPOCH"
    say "image: $(du -m "$out/rootfs.erofs" | cut -f1) MB, Linux $KERNEL_VERSION"
}

main() {
    [[ $# -eq 0 ]] || die "takes no arguments (see the head of $0)"
    enter_private_mounts "$0"
    need_tools mmdebstrap mkfs.erofs:erofs-utils cpio apt-get:apt

    local key
    key=$(printf '%s\n' "$EPOCH" "$KERNEL_PACKAGE" "$(mkfs.erofs --version 2>&1 | head -n 1)" |
        hash_inputs "$HERE/host.sh" "$HERE/../../images/debian.sh")
    cached "$key" build
    printf '%s\n' "$RESULT"
}

main "$@"
