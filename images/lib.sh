# shellcheck shell=bash
# What the build scripts for guest images share: where results are cached, and how a result appears
# there all at once or not at all. Sourced, never run.
#
# Results live outside the checkout, because they are large, slow to make and the same for every
# checkout: in $CLOCHE_CACHE, else /var/cache/cloche for root and ~/.cache/cloche for everybody else.
# A result is a directory NAME-KEY, where KEY is a hash over everything that went into it, so a
# changed input makes a new directory and an unchanged one costs nothing.

say() {
    printf '[%s %3ds] %s\n' "$BUILD_NAME" "$SECONDS" "$*" >&2
}

die() {
    printf '%s: %s\n' "$BUILD_NAME" "$*" >&2
    exit 1
}

cache_dir() {
    local dir
    if [[ -n ${CLOCHE_CACHE:-} ]]; then
        dir=$CLOCHE_CACHE
    elif [[ $EUID -eq 0 ]]; then
        dir=/var/cache/cloche
    else
        dir=${HOME:?}/.cache/cloche
    fi
    mkdir -p "$dir"
    (cd "$dir" && pwd -P)
}

# hash_inputs FILE... <STRINGS: the first 16 hex digits of a hash over standard input and the files,
# each with its base name, so that moving the checkout changes nothing.
hash_inputs() {
    {
        cat
        local f
        for f in "$@"; do
            printf '%s %s\n' "$(sha256sum <"$f")" "${f##*/}"
        done
    } | sha256sum | cut -c1-16
}

need_tools() {
    local tool
    for tool in "$@"; do
        command -v "${tool%%:*}" >/dev/null ||
            die "${tool%%:*} is missing; remedy: apt-get install ${tool#*:}"
    done
}

# cached KEY BUILD_FUNCTION: sets RESULT to the directory $CACHE/$BUILD_NAME-KEY, and makes it with
# `BUILD_FUNCTION WORK OUT` when it is not there. WORK is scratch, OUT becomes the result; both are on
# the cache's file system, so that the last step is one rename. The lock lets a second caller wait for
# the first instead of doing the work twice. Whoever holds it may remove what a killed build left.
cached() {
    local key=$1 build=$2 cache
    cache=$(cache_dir)
    RESULT=$cache/$BUILD_NAME-$key
    [[ -d $RESULT ]] && return

    exec {LOCK_FD}>"$cache/.lock-$BUILD_NAME"
    if ! flock -n "$LOCK_FD"; then
        say "another build is under way, waiting for it"
        flock "$LOCK_FD"
    fi
    if [[ ! -d $RESULT ]]; then
        rm -rf --one-file-system "$cache/.tmp-$BUILD_NAME".*
        WORK=$(mktemp -d "$cache/.tmp-$BUILD_NAME.XXXXXX")
        trap clean_up EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM HUP
        mkdir "$WORK/work" "$WORK/out"
        "$build" "$WORK/work" "$WORK/out"
        chmod 755 "$WORK/out"
        mv -T "$WORK/out" "$RESULT"
        clean_up
        trap - EXIT INT TERM HUP
        say "done: $RESULT"
    fi
    exec {LOCK_FD}>&-
}

# Children first: a compiler that still runs would write into a directory that is being removed.
clean_up() {
    local pids
    pids=$(jobs -p)
    # shellcheck disable=SC2086 # one word per process
    [[ -z $pids ]] || { kill $pids 2>/dev/null || true; wait; }
    [[ -z ${WORK:-} ]] || rm -rf --one-file-system "$WORK"
    WORK=
}
