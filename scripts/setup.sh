#!/usr/bin/env bash
# setup.sh GROUP...: makes sure the Debian packages of these groups are installed. As root it installs
# what is missing; otherwise it lists that with the command to run, and fails. When nothing is missing
# it costs one dpkg-query.
#
# Groups: build (cloche itself), images (guest kernel and root file systems), run (make run), test
# (make test), svm (make test-svm).
set -euo pipefail

declare -A GROUPS_OF=(
    # cpio and binutils: the guest's initramfs. musl: the monitor and the agent are static programs.
    [build]="gcc libc6-dev make binutils cpio musl-tools libuv1-dev libcjson-dev libseccomp-dev
             libmd-dev libwslay-dev libarchive-dev"
    # flex ... libelf-dev: what the kernel's own build asks for.
    [images]="linux-source-6.12 gcc libc6-dev make patch xz-utils flex bison bc libelf-dev
              mmdebstrap erofs-utils e2fsprogs ca-certificates debian-archive-keyring"
    [run]="curl python3 procps"
    # clang: fuzz targets and the second compiler; llvm: readable traces from its sanitizers.
    [test]="clang-14 clang clang-format libclang-rt-14-dev llvm-14 shellcheck libcmocka-dev git
            iproute2 util-linux tmux"
    [svm]="qemu-system-x86 erofs-utils e2fsprogs cpio"
)

die() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

wanted() {
    local group
    for group in "$@"; do
        [[ -n ${GROUPS_OF[$group]:-} ]] || die "no group \"$group\"; groups: ${!GROUPS_OF[*]}"
        printf '%s\n' "${GROUPS_OF[$group]}"
    done | xargs -n1 | sort -u
}

missing_of() {
    comm -23 <(printf '%s\n' "$@") \
        <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
            sed -n 's/ installed$//p' | sort -u)
}

# apt's own output is long and matters only on failure.
apt_quietly() {
    local log
    log=$(mktemp)
    if ! DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -y "$@" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}

# Package lists that are there may be too old to install from, so a failure gets a second try.
install_packages() {
    local lists=(/var/lib/apt/lists/*_Packages*)
    printf 'setup: installing %d packages: %s\n' "$#" "$*"
    if [[ -e ${lists[0]} ]] && apt_quietly install --no-install-recommends "$@" 2>/dev/null; then
        return
    fi
    printf 'setup: apt-get update\n'
    apt_quietly update || die "apt-get update failed (above); is there a network?"
    apt_quietly install --no-install-recommends "$@" || die "apt-get install failed (above)"
}

main() {
    [[ $# -gt 0 ]] || die "usage: $0 GROUP...; groups: ${!GROUPS_OF[*]}"
    local packages missing
    mapfile -t packages < <(wanted "$@")
    if ! command -v dpkg-query >/dev/null; then
        printf 'setup: not a Debian system; these packages or their like must be there: %s\n' \
            "${packages[*]}" >&2
        return
    fi
    mapfile -t missing < <(missing_of "${packages[@]}")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    if [[ $EUID -ne 0 ]]; then
        die "these packages are missing:
  ${missing[*]}
  remedy: sudo apt-get install --no-install-recommends ${missing[*]}"
    fi
    install_packages "${missing[@]}"
}

main "$@"
