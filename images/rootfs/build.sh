#!/bin/bash
# Builds the root file system of a template and prints the absolute path of its directory, the only
# line on standard output. The directory holds rootfs.erofs and template.json.
#
#   images/rootfs/build.sh base      busybox
#   images/rootfs/build.sh python    Debian with Python, pip, git and curl
#
# CLOCHE_CACHE names the cache (see ../lib.sh). Packages come from where ../debian.sh says.
#
# The image is an uncompressed EROFS, mounted read-only in every guest with an overlay on top. On
# software KVM the guest's kernel copies a few MB a second while the host copies gigabytes: hence no
# compression, and file data in whole blocks that the host writes straight to the page cache.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
BUILD_NAME=rootfs-${1:-}
# shellcheck source=../lib.sh
. "$HERE/../lib.sh"
# shellcheck source=../debian.sh
. "$HERE/../debian.sh"

# Raise it to take in new package versions: the key must not depend on what a mirror has today. It is
# also the time stamp of every file in the images (zip, and so pip, refuses dates before 1980).
EPOCH=2026-11-01

PYTHON_PACKAGES=(
    bash ca-certificates coreutils curl file git less nano-tiny netbase openssh-client procps
    python3 python3-pip python3-venv tzdata unzip xz-utils
)

fill_base() {
    local work=$1 root=$2 path

    bootstrap "$work" "$work/packages" extract busybox-static
    mkdir -p "$root/usr/bin" "$root/usr/sbin" "$root/usr/lib" "$root/etc/ssl/certs"
    for path in bin sbin lib; do
        ln -s "usr/$path" "$root/$path"
    done
    install -m 755 "$(find "$work/packages" -type f -path '*/bin/busybox')" "$root/usr/bin/busybox"
    while IFS= read -r path; do
        case $path in
            # init and friends would act on the guest; PID 1 is the agent.
            */busybox | sbin/init | linuxrc | sbin/halt | sbin/poweroff | sbin/reboot) ;;
            # /bin is usr/bin: one name may come twice, and either is the same program.
            *) ln -sf /usr/bin/busybox "$root/$path" ;;
        esac
    done < <(chroot "$root" /usr/bin/busybox --list-full)

    cat >"$root/etc/passwd" <<-'END'
		root:x:0:0:root:/root:/bin/sh
		daemon:x:1:1:daemon:/usr/sbin:/bin/false
		nobody:x:65534:65534:nobody:/nonexistent:/bin/false
	END
    cat >"$root/etc/group" <<-'END'
		root:x:0:
		daemon:x:1:
		tty:x:5:
		users:x:100:
		nogroup:x:65534:
	END
    printf '%s:*:19000:0:99999:7:::\n' root daemon nobody >"$root/etc/shadow"
    chmod 640 "$root/etc/shadow"
    printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
    printf 'PRETTY_NAME="cloche base"\nID=cloche-base\nNAME="cloche base"\n' >"$root/etc/os-release"
    # A login shell (ssh habits: `sh -l`) must not lose the template's PATH.
    printf 'export PATH=%s\n' "$IMAGE_PATH" >"$root/etc/profile"
}

fill_python() {
    local work=$1 root=$2

    bootstrap "$work" "$root" minbase "$(IFS=,; printf '%s' "${PYTHON_PACKAGES[*]}")"
    ln -s python3 "$root/usr/bin/python"
    # The image is thrown away with the sandbox: pip may install into it.
    rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
    # Every start of Python would run these two: Ubuntu's crash reporter, which Debian does not have,
    # and setuptools' switch to its own distutils, which it also throws when it is imported.
    rm -f "$root"/usr/lib/python3*/sitecustomize.py "$root"/etc/python3*/sitecustomize.py \
        "$root"/usr/lib/python3/dist-packages/distutils-precedence.pth
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
        "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old "$root"/var/cache/ldconfig \
        "$root"/usr/lib/locale/locale-archive
    find "$root/var/log" -type f -delete
    # Run before the snapshot (guest/boot/warm.h): what most scripts import is in every guest's
    # cache then.
    mkdir -p "$root/etc/cloche"
    printf 'exec python3 -c "import %s"\n' \
        'argparse, collections, csv, datetime, json, math, pathlib, re, subprocess' \
        >"$root/etc/cloche/warm-up"
}

# What every template has, whatever filled it.
finish() {
    local root=$1 dir

    for dir in proc sys dev run mnt etc home root workspace usr/local/bin usr/local/sbin; do
        mkdir -p "$root/$dir"
    done
    # The guest mounts over these: what a package left there would only be hidden.
    for dir in dev run tmp var/tmp; do
        rm -rf "${root:?}/$dir"
        mkdir -p "$root/$dir"
    done
    chmod 755 "$root" "$root"/{proc,sys,dev,run,mnt,workspace}
    chmod 700 "$root/root"
    chmod 1777 "$root/tmp" "$root/var/tmp"

    printf 'sandbox\n' >"$root/etc/hostname"
    printf '127.0.0.1\tlocalhost\n127.0.1.1\tsandbox\n' >"$root/etc/hosts"
    rm -f "$root/etc/resolv.conf" "$root/etc/machine-id"
    : >"$root/etc/resolv.conf"
    # Two sandboxes of one template must not have the same machine id: the agent writes it to /run
    # after every restore.
    ln -s /run/machine-id "$root/etc/machine-id"
    if [[ -d $root/var/lib/dbus ]]; then
        ln -sf /run/machine-id "$root/var/lib/dbus/machine-id"
    fi

    printf 'user:x:1000:1000:user:/home/user:%s\n' "$IMAGE_SHELL" >>"$root/etc/passwd"
    printf 'user:x:1000:\n' >>"$root/etc/group"
    printf 'user:*:19000:0:99999:7:::\n' >>"$root/etc/shadow"
    [[ ! -f $root/etc/gshadow ]] || printf 'user:*::\n' >>"$root/etc/gshadow"
    [[ ! -d $root/etc/skel ]] || cp -a "$root/etc/skel" "$root/home/user"
    mkdir -p "$root/home/user"
    chown -R 1000:1000 "$root/home/user"
}

# Python trusts a .pyc only when it holds the .py file's time stamp, and mkfs gives every file the same
# one. So the time stamps change first, and then everything is compiled afresh: otherwise each start of
# Python in a guest would compile the standard library.
compile_python() {
    local root=$1
    find "$root" -name __pycache__ -prune -exec rm -rf {} +
    find "$root" -xdev -exec touch -h -d "$EPOCH UTC" {} +
    PYTHONHASHSEED=0 nice chroot "$root" /usr/bin/python3 -m compileall -q \
        /usr/lib/python3 /usr/lib/python3.* >&2
}

build() {
    local work=$1 out=$2 root=$1/root
    mkdir "$root"

    "fill_$NAME" "$work" "$root"
    finish "$root"
    [[ ! -x $root/usr/bin/python3 ]] || { say "compiling Python's library"; compile_python "$root"; }
    say "making the image"
    make_image "$root" "$out/rootfs.erofs" "$EPOCH"
    cp "$HERE/$NAME.json" "$out/template.json"
    say "image: $(du -m "$out/rootfs.erofs" | cut -f1) MB"
}

main() {
    [[ $# -eq 1 && -f $HERE/$1.json ]] || die "usage: $0 NAME, one of: $(cd "$HERE" && echo *.json |
        sed 's/\.json//g')"
    NAME=$1
    enter_private_mounts "$0" "$@"
    need_tools mmdebstrap mkfs.erofs:erofs-utils

    IMAGE_PATH=$(sed -n 's/.*"PATH": "\(.*\)".*/\1/p' "$HERE/$NAME.json")
    IMAGE_SHELL=$(sed -n 's/.*"shell": "\(.*\)".*/\1/p' "$HERE/$NAME.json")
    local key
    key=$(printf '%s\n' "$RELEASE" "$EPOCH" "$(mkfs.erofs --version 2>&1 | head -n 1)" |
        hash_inputs "$HERE/$NAME.json" "$HERE/build.sh" "$HERE/../debian.sh")
    cached "$key" build
    printf '%s\n' "$RESULT"
}

main "$@"
