#!/bin/bash
# Builds the guest kernel and prints the absolute path of its vmlinux, the only line on standard output.
#
#   images/kernel/build.sh                 build it, unless the cache has it
#   KERNEL=/path images/kernel/build.sh    use that one instead (checked to exist, nothing is built)
#
# CLOCHE_CACHE names the cache (see ../lib.sh), CC the compiler, JOBS the number of parallel ones.
#
# The source is what the distribution ships and patches for security, so that no kernel tree lives in
# this repository: linux-source-6.12 + patches/ + config. The result is an uncompressed ELF: the monitor
# loads it straight to its place, while a bzImage would unpack itself in the guest, which takes minutes
# where the guest's kernel mode is interpreted.
set -euo pipefail

BUILD_NAME=kernel
SOURCE_PACKAGE=linux-source-6.12
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=../lib.sh
. "$HERE/../lib.sh"

SOURCE_TAR=/usr/src/$SOURCE_PACKAGE.tar.xz
PATCHES=("$HERE"/patches/*.patch)
CC=${CC:-gcc}
JOBS=${JOBS:-$(nproc)}

source_version() {
    dpkg-query -W -f '${Version}' "$SOURCE_PACKAGE" 2>/dev/null || true
}

# Every line of the fragment must be in the final configuration: Kconfig drops an option whose
# dependencies are missing without a word, and the guest would fail much later and far from here.
check_config() {
    local fragment=$1 final=$2 line option bad=0
    while IFS= read -r line; do
        case $line in
            CONFIG_*=*)
                grep -qxF -- "$line" "$final" || { say "config: lost: $line"; bad=1; }
                ;;
            '# CONFIG_'*' is not set')
                option=${line#\# }
                option=${option% is not set}
                ! grep -q "^$option=" "$final" || { say "config: still on: $option"; bad=1; }
                ;;
        esac
    done <"$fragment"
    [[ $bad -eq 0 ]] || die "the kernel did not take the configuration as written (above)"
}

kernel_make() {
    nice make -C "$TREE" ARCH=x86_64 CC="$CC" "$@"
}

# What this configuration has, more or less; only progress is measured by it.
OBJECTS_ABOUT=920

# make is silent for minutes otherwise; a log is kept because only its end matters, and only on failure.
compile() {
    local log=$1 pid
    kernel_make -j "$JOBS" vmlinux >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 5
        say "compiling: $(grep -cE '^  (CC|AS) ' "$log") of about $OBJECTS_ABOUT objects"
    done
    wait "$pid" || { tail -n 40 "$log" >&2; die "the kernel does not compile"; }
}

build() {
    local work=$1 out=$2 patch
    TREE=$work/$SOURCE_PACKAGE

    say "unpacking $SOURCE_TAR"
    tar -C "$work" -xf "$SOURCE_TAR"

    for patch in "${PATCHES[@]}"; do
        say "patch ${patch##*/}"
        # No fuzz: a hunk that only nearly fits may land in the wrong function.
        patch -d "$TREE" -p1 -s -F0 <"$patch" || die "${patch##*/} does not apply to $(source_version)"
    done

    # The same input gives the same bytes, whoever builds it and when.
    KBUILD_BUILD_TIMESTAMP=$(date -u -r "$TREE/Makefile")
    export KBUILD_BUILD_TIMESTAMP KBUILD_BUILD_USER=cloche KBUILD_BUILD_HOST=cloche KBUILD_BUILD_VERSION=1

    say "configuring"
    # allnoconfig, not a merge over tinyconfig: the latter gives every option that a line of the
    # fragment uncovers its default, and many defaults are y (forty network card vendors, for one).
    KCONFIG_ALLCONFIG=$HERE/config kernel_make -s allnoconfig >&2
    check_config "$HERE/config" "$TREE/.config"

    compile "$work/log"
    cp "$TREE/vmlinux" "$out/vmlinux"
    cp "$TREE/.config" "$out/config"
}

main() {
    [[ $# -eq 0 ]] || die "takes no arguments (see the head of $0)"

    if [[ -n ${KERNEL:-} ]]; then
        [[ -f $KERNEL ]] || die "KERNEL=$KERNEL: no such file"
        realpath -- "$KERNEL"
        return
    fi

    [[ $(uname -m) == x86_64 ]] || die "guests are x86_64, this machine is $(uname -m)"
    if [[ ! -r $SOURCE_TAR || -z $(source_version) ]]; then
        die "the package $SOURCE_PACKAGE is not installed
  remedy: apt-get install $SOURCE_PACKAGE (Debian bookworm: from bookworm-updates or bookworm-security)
  or name a kernel of your own: KERNEL=/path/to/vmlinux"
    fi
    need_tools "$CC:gcc" make flex bison bc patch xz:xz-utils
    [[ -e /usr/include/gelf.h ]] || die "gelf.h is missing; remedy: apt-get install libelf-dev"

    local key
    key=$(printf '%s\n' "$(source_version)" "$("$CC" --version | head -n 1)" "$(ld --version | head -n 1)" |
        hash_inputs "$HERE/config" "${PATCHES[@]}" "$HERE/build.sh")
    cached "$key" build
    printf '%s\n' "$RESULT/vmlinux"
}

main "$@"
