# shellcheck shell=bash
# Debian root file systems: what the images for guests and the emulated test host have in common.
# Sourced after lib.sh, never run.
#
# Packages come from this machine's own apt sources for the release below, with this machine's apt
# settings (proxies, certificates); where there are none for it, from the Debian archive.

RELEASE=bookworm

# What a sandbox never reads. dpkg keeps the rules, so that packages installed later obey them too.
DPKG_EXCLUDES=(
    /usr/share/doc/\* /usr/share/man/\* /usr/share/info/\* /usr/share/locale/\* /usr/share/lintian/\*
    /usr/share/bug/\* /usr/share/i18n/\* /usr/share/gtk-doc/\* /usr/share/doc-base/\*
    /usr/share/common-licenses/\* /usr/share/groff/\* /usr/share/linda/\*
)

# Prints those entries of this machine's apt sources that name the release and the Debian archive's
# main component, in either of apt's two formats, and nothing when there are none.
apt_sources_list() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        awk -v suite=" $RELEASE(-updates|-security|/updates)? " \
            '/^[[:space:]]*deb[[:space:]]/ && $0 ~ suite && / main( |$)/' || true
}

apt_sources_deb822() {
    local file
    for file in /etc/apt/sources.list.d/*.sources; do
        [[ -r $file ]] || continue
        grep -v '^#' "$file" | awk -v suite="Suites:[^\n]* $RELEASE" -v RS= -v ORS='\n\n' \
            '/Types:[^\n]* deb/ && $0 ~ suite && /Components:[^\n]* main/ && !/Enabled: *no/'
    done
}

# bootstrap WORK ROOT VARIANT PACKAGES: mmdebstrap, with its output kept for the day it fails. EPOCH is
# the caller's date for everything in the image.
bootstrap() {
    local work=$1 root=$2 variant=$3 packages=$4 log=$1/log pid path options=() sources=()

    apt_sources_list >"$work/apt.list"
    apt_sources_deb822 >"$work/apt.sources"
    for path in "$work/apt.list" "$work/apt.sources"; do
        [[ ! -s $path ]] || sources+=("$path")
    done
    apt-config dump | grep '^Acquire::' >"$work/apt.conf" || true
    for path in "${DPKG_EXCLUDES[@]}"; do
        options+=("--dpkgopt=path-exclude=$path")
    done

    # The date is what packages write into files they make (/etc/shadow) when it is set.
    SOURCE_DATE_EPOCH=$(date -u -d "$EPOCH" +%s) TMPDIR=$work nice mmdebstrap --mode=root --variant="$variant" --include="$packages" \
        --aptopt="$work/apt.conf" --aptopt='APT::Install-Recommends "false"' "${options[@]}" \
        "$RELEASE" "$root" "${sources[@]}" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 3
        say "$(sed -n 's/^I: //p' "$log" | tail -n 1)"
    done
    wait "$pid" || { tail -n 30 "$log" >&2; die "mmdebstrap failed (above)"; }
}

# make_image ROOT IMAGE DATE: the same tree and date give the same bytes. File data stays in whole blocks
# instead of behind the inode, so that reading it is one request to the page cache and no copy.
make_image() {
    local root=$1 image=$2 date=$3 uuid
    uuid=$(printf '%s' "$BUILD_NAME $date" | sha256sum |
        sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-8\4-\5/')
    nice mkfs.erofs -T "$(date -u -d "$date" +%s)" -U "$uuid" -x-1 -E noinline_data,force-inode-compact \
        "$image" "$root" >"$image.log" 2>&1 || { cat "$image.log" >&2; die "mkfs.erofs failed (above)"; }
    rm "$image.log"
}

# enter_private_mounts SCRIPT ARGS...: starts the script again in a mount namespace of its own, so that
# not even a killed build leaves a mount behind. mmdebstrap and the files' owners need root.
enter_private_mounts() {
    [[ $EUID -eq 0 ]] || die "must run as root; remedy: sudo $*"
    if [[ -z ${CLOCHE_PRIVATE_MOUNTS:-} ]]; then
        CLOCHE_PRIVATE_MOUNTS=1 exec unshare --mount --propagation private "$@"
    fi
    unset CLOCHE_PRIVATE_MOUNTS
}
