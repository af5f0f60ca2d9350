#!/bin/bash
# Runs a command on an emulated host that has hardware virtualisation (AMD SVM with nested paging).
#
#   tests/svm/run.sh [OPTION...] -- COMMAND [ARG...]
#   tests/svm/run.sh [OPTION...] e2e [WORD...]        end-to-end tests, with words for tests/tap.py
#   tests/svm/run.sh [OPTION...] payload              the guests that attack the monitor
#
#   --mount DIR       DIR of this machine is there at the same path (writes stay inside); repeatable
#   --keep DIR        a mount; files made below DIR/*/ come back at the end, as snapshots.py has it
#   --exclude PATH    relative to a --mount: is not there; repeatable
#   --env NAME=VALUE  sets an environment variable for the command; repeatable
#   --cwd DIR         working directory, instead of the first --mount
#   --timeout S       seconds until the host is killed (7200)
#   --memory MIB      of the host (2048); --cpus N (1; more are not reliable)
#   --verbose         the host's console on standard error
#
# The exit status is the command's. 125 means that the host itself failed: it did not boot, died or ran
# out of time. 77 (nothing printed but a "needs ..." line) means that QEMU is not installed.
#
# Theory of operation. QEMU interprets a whole x86 machine, SVM included, so /dev/kvm in there is the
# kvm-amd that most users have, while this machine may have software KVM or none at all: nested page
# tables, guest kernels in the real ring 0, several vCPUs. What is measured in there means nothing, what
# works means much. One thing is missing: QEMU 7.2 does not intercept XSETBV, so the guest's XCR0 is lost
# at the next exit, and a guest kernel finds that out at boot ("XSAVE consistency problem"), warns, and
# stays with FXSAVE and without AVX.
#
# QEMU 7.2 fails in three ways that look like ours. What was seen, in hosts that hung, through its monitor
# and in dumps of memory, and what in QEMU explains it (from its source's structure, not proven by a patch):
#   - A guest takes the same interrupt again inside its handler, with interrupts off, and waits for a lock
#     of its own (handle_edge_irq within handle_edge_irq); a triple fault was seen as well. After a VMRUN
#     that injects, helper_vmrun leaves the vector in exception_index until the guest's next exit; a CPU
#     that must leave its loop in between without an interrupt delivers it once more.
#   - A CPU of the host traps for ever on an instruction that is a no-op in memory: code that one CPU patches
#     while another runs it stays translated as it was in between. KVM patches the scheduler (a static key)
#     with each first and last virtual machine.
#   - The host's only CPU sleeps for ever. Leaving and entering a guest changes interrupt_request without a
#     lock, so that an interrupt which a timer's thread raises at that moment can be lost.
# So the host has one CPU, and its kernel a tick that repeats by itself (nohz=off highres=off): a lost
# interrupt still waits in the local APIC, which is asked again at the next tick, 4 ms later. A tick that
# each tick has to set anew, the kernel's default, ends with the first one that is lost.
#
# -icount is no cure, although its timers expire in the CPU's own thread: the CPU leaves its loop for each
# of them before there is an interrupt, which is the first fault's condition. A guest that read its disk in
# blocks of 4 KiB hung within 16,000 interrupts, and half of the uploads of 1 GiB did; without it 98,000
# interrupts passed.
# What is more, a guest that waits for a lock in vain leaves QEMU's loop with each `pause`, so that time
# counted in instructions all but stands still, and no time-out of anybody's fires.
#
# The host is Debian with cgroup v2 only (host.sh builds it, host/ has its two init scripts, which travel
# with the job), booted in a few seconds from
#   - a read-only root disk, shared by all runs;
#   - one read-only disk for each --mount, packed on the fly: it takes a second for 300 MB and needs,
#     unlike 9p or virtiofs, nothing of the host kernel and leaves the real directory alone;
#   - an ext4 scratch disk that takes all writes (overlays above the other disks, /tmp, /var/lib/cloche).
# The command's output and its exit status come back through two virtio serial ports, so that no line of
# the kernel's gets between, and a host that dies without a status cannot look like a success.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
TOP=$(cd "$HERE/../.." && pwd -P)
MOUNTS=()
EXCLUDES=()
ENVIRONMENT=()
CWD=
KEEP=
JOB=
TIMEOUT_S=7200
MEMORY_MIB=2048
CPUS=1
VERBOSE=
WORK=

die() {
    printf 'svm: %s\n' "$*" >&2
    exit 125
}

# Long-lived children are this script's own and known by id; the FIFO's reader ends with its writer.
# shellcheck disable=SC2317 # called by the traps
clean_up() {
    local pids
    pids=$(jobs -p)
    # shellcheck disable=SC2086 # one word per process
    [[ -z $pids ]] || kill $pids 2>/dev/null || true
    wait || true
    [[ -z $WORK ]] || rm -rf "$WORK"
}

add_mount() {
    [[ -d $1 ]] || die "--mount $1: no such directory"
    MOUNTS+=("$(realpath -- "$1")")
}

# What the end-to-end tests need of this machine: the checkout, and the images its links point to.
add_e2e_job() {
    local link store
    add_mount "$TOP"
    for link in "$TOP"/build/images/*; do
        [[ -e $link ]] || continue
        link=$(realpath -- "$link")
        [[ -d $link ]] || link=$(dirname "$link")
        [[ $link == "$TOP"/* ]] || MOUNTS+=("$link")
    done
    EXCLUDES+=(--exclude-path={.git,build/asan,build/clang,build/fuzz}) # for other tests
    # Snapshots of this kind of KVM, next to the host that they are for.
    store=${HOST%/*}/svm-snapshots
    mkdir -p "$store"
    KEEP=$store
    add_mount "$store"
    ENVIRONMENT+=(E2E_STORE="$store")
    COMMAND=(python3 tests/tap.py --limit 900 tests/e2e "$@")
}

# The test program finds its guests and its monitor by its own place.
add_payload_job() {
    add_mount "$TOP/build/release"
    EXCLUDES+=(--exclude-path={host,static,gen})
    # The two make tens of thousands of exits, which takes minutes here.
    ENVIRONMENT+=(CMOCKA_MESSAGE_OUTPUT=TAP TEST_LEAVE="port_string serial_flood")
    COMMAND=("$TOP/build/release/tests/payload/test_payload")
}

parse() {
    while [[ $# -gt 0 ]]; do
        case $1 in
            -- | e2e | payload) JOB=$1; shift; break ;;
            --verbose) VERBOSE=1; shift; continue ;;
            --mount | --keep | --exclude | --env | --cwd | --timeout | --memory | --cpus)
                [[ $# -gt 1 ]] || die "$1 needs a value" ;;
            *) die "unknown option $1 (see the head of $0)" ;;
        esac
        case $1 in
            --mount) add_mount "$2" ;;
            --keep) add_mount "$2"; KEEP=$(realpath -- "$2") ;;
            --exclude) EXCLUDES+=("--exclude-path=$2") ;;
            --env) ENVIRONMENT+=("$2") ;;
            --cwd) CWD=$2 ;;
            --timeout) TIMEOUT_S=$2 ;;
            --memory) MEMORY_MIB=$2 ;;
            --cpus) CPUS=$2 ;;
        esac
        shift 2
    done
    COMMAND=("$@")
    [[ -n $JOB ]] || die "what is to be run? (see the head of $0)"
}

add_disk() {
    local serial=$1 file=$2 options=$3
    QEMU_DISKS+=(-drive "file=$file,format=raw,if=none,id=$serial,$options"
        -device "virtio-blk-pci,drive=$serial,serial=$serial")
}

# A file that vanishes while it is read (somebody compiles in there) fails the whole image: try again.
pack() {
    local dir=$1 image=$2 try
    for try in 1 2 3; do
        rm -f "$image"
        if mkfs.erofs -x-1 "${EXCLUDES[@]}" "$image" "$dir" >"$WORK/log" 2>&1; then
            return
        fi
        sleep "$try"
    done
    cat "$WORK/log" >&2
    die "cannot pack $dir (above)"
}

# The mounts in the order of their paths, each once, and none that is inside another one already.
pack_mounts() {
    local dir last='' number=0
    while IFS= read -r dir; do
        if [[ -n $last && $dir/ == "$last"/* ]]; then
            continue
        fi
        last=$dir
        pack "$dir" "$WORK/mount$number"
        add_disk "mount$number" "$WORK/mount$number" readonly=on
        printf 'mount%d %s\n' "$number" "$dir"
        number=$((number + 1))
    done < <([[ ${#MOUNTS[@]} -eq 0 ]] || printf '%s\n' "${MOUNTS[@]}" | LC_ALL=C sort -u)
}

# The job travels as a second archive behind the initrd's own; the kernel unpacks both.
make_job() {
    local job=$WORK/job/job
    mkdir -p "$job"
    pack_mounts >"$WORK/mounts"
    mv "$WORK/mounts" "$job/mounts"
    {
        printf '#!/bin/bash\ncd -- %q || exit 125\n' "$CWD"
        [[ ${#ENVIRONMENT[@]} -eq 0 ]] || printf 'export %q\n' "${ENVIRONMENT[@]}"
        printf 'exec'
        printf ' %q' "${COMMAND[@]}"
        printf '\n'
    } >"$job/command"
    chmod 755 "$job/command"
    install -m 755 "$HERE/host/initrd-init" "$WORK/job/init"
    install -m 755 "$HERE/host/host-init" "$job/init"
    {
        cat "$HOST/initrd.cpio"
        (cd "$WORK/job" && find . | cpio -o -H newc -R 0:0 --quiet)
    } >"$WORK/initrd"
}

boot() {
    mkfifo "$WORK/output"
    cat "$WORK/output" &
    local reader=$! console="$WORK/console"
    if [[ -n $VERBOSE ]]; then
        mkfifo "$console"
        cat "$console" >&2 &
    fi

    timeout --kill-after=10 "$TIMEOUT_S" qemu-system-x86_64 -M q35 -accel tcg,thread=single \
        -cpu EPYC,+svm,+npt -smp "$CPUS" -m "$MEMORY_MIB" \
        -kernel "$HOST/vmlinuz" -initrd "$WORK/initrd" \
        -append "console=ttyS0 panic=-1 quiet random.trust_cpu=on nohz=off highres=off" \
        -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$console" "${QEMU_DISKS[@]}" -device virtio-rng-pci -device virtio-serial-pci \
        -chardev "file,id=output,path=$WORK/output" -device virtserialport,chardev=output,name=output \
        -chardev "file,id=status,path=$WORK/status" -device virtserialport,chardev=status,name=status \
        </dev/null >"$WORK/qemu" 2>&1 &
    local qemu=$! ended=0
    wait "$qemu" || ended=$?
    # The rest of the output may still be in the pipe.
    wait "$reader" || true
    return "$ended"
}

# What was written below KEEP is in the upper directory of its overlay, on the scratch disk.
bring_back() {
    local serial back
    serial=$(awk -v dir="$KEEP" '$2 == dir { print $1 }' "$WORK/job/job/mounts")
    back=$(mktemp -d "$KEEP/.back-XXXXXX")
    debugfs -R "rdump /$serial/upper $back" "$WORK/scratch" >"$WORK/debugfs" 2>&1 || true
    python3 "$HERE/../e2e/snapshots.py" "$KEEP" "$back/upper"
    rm -rf "$back"
}

main() {
    parse "$@"
    local tool
    for tool in qemu-system-x86_64 mkfs.erofs mkfs.ext4 debugfs cpio; do
        command -v "$tool" >/dev/null || { echo "needs qemu ($tool is not installed)"; exit 77; }
    done
    HOST=$("$HERE/host.sh") || die "the emulated host could not be built (above)"
    case $JOB in
        e2e) add_e2e_job "${COMMAND[@]}" ;;
        payload) add_payload_job ;;
    esac
    : "${CWD:=${MOUNTS[0]:-/root}}"

    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/cloche-svm.XXXXXX")
    QEMU_DISKS=()
    add_disk root "$HOST/rootfs.erofs" readonly=on
    truncate -s 16G "$WORK/scratch"
    mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=1 "$WORK/scratch"
    add_disk scratch "$WORK/scratch" cache=unsafe
    make_job

    local ended=0 status
    boot || ended=$?
    if [[ $ended -eq 124 || $ended -eq 137 ]]; then
        die "no result after $TIMEOUT_S s: killed"
    fi
    status=$(cat "$WORK/status" 2>/dev/null || true)
    if [[ ! $status =~ ^[0-9]+$ ]]; then
        { grep -v 'TCG doesn.t support' "$WORK/qemu" | tail -n 5
          [[ -n $VERBOSE ]] || tail -n 40 "$WORK/console"; } >&2 || true
        die "the host ended without a result (QEMU exit status $ended, its last words above)"
    fi
    [[ -z $KEEP ]] || bring_back # only here: a host that was killed has not written it all
    exit "$status"
}

main "$@"
