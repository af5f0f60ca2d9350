#!/usr/bin/env bash
# What `make run` shows once everything is built: a daemon of its own under build/run, a sandbox made
# with curl, a script and a table of sales sent in, the script's output and a result file fetched, the
# sandbox deleted, the daemon stopped. Nothing is left but the template's snapshot, which makes the
# next run quick.
set -euo pipefail

cd "$(dirname "$0")/.."
RUN=$PWD/build/run
SOCKET=$RUN/cloche.sock
LOG=$RUN/daemon.log
DAEMON=

say() { printf '\n== %s\n' "$*"; }

die() {
    printf 'make run: %s\n' "$*" >&2
    [[ ! -s $LOG ]] || { printf 'the end of %s:\n' "$LOG" >&2; tail -n 20 "$LOG" >&2; }
    exit 1
}

stop_daemon() {
    if [[ -n $DAEMON ]]; then
        kill -TERM "$DAEMON" 2>/dev/null || true
        wait "$DAEMON" 2>/dev/null || true
    fi
    DAEMON=
}

# call METHOD PATH [CURL OPTION]...: one request; fails with what the API says.
call() {
    local method=$1 path=$2 reply
    shift 2
    if ! reply=$(curl --silent --show-error --fail-with-body --unix-socket "$SOCKET" \
        --request "$method" "$@" "http://cloche$path"); then
        die "$method $path: $reply"
    fi
    printf '%s' "$reply"
}

# field NAME[.NAME]... <JSON: one value out of a reply.
field() {
    python3 -c '
import functools, json, sys
print(functools.reduce(lambda value, name: value[name], sys.argv[1].split("."), json.load(sys.stdin)))' "$1"
}

start_daemon() {
    mkdir -p "$RUN"
    rm -f "$LOG"
    build/cloche serve --state-dir "$RUN/state" --socket "$SOCKET" --images build/images \
        </dev/null 2>"$LOG" &
    DAEMON=$!
    trap stop_daemon EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    local shown=0 lines
    until grep -q ' daemon: ready$' "$LOG"; do
        kill -0 "$DAEMON" 2>/dev/null || { DAEMON=; die "the daemon did not start"; }
        lines=$(wc -l <"$LOG")
        if ((lines > shown)); then
            tail -n "+$((shown + 1))" "$LOG" | sed -E 's/^[^ ]+ [a-z]+ daemon:/  /'
            shown=$lines
        fi
        sleep 0.2
    done
}

show_times() {
    python3 -c '
import json, sys
made, ran = map(json.loads, sys.argv[1:])
times = {**made["times"], **ran["times"]}
print("   pool: " + made["pool"])
for name, meaning in (("restore_ms", "state of the guest loaded"),
                      ("first_instruction_ms", "its first instruction"),
                      ("ready_ms", "new random numbers, clock and identity: ready"),
                      ("first_output_ms", "first byte of the output, from the arrival of the exec")):
    print("   %-22s %10.3f   %s" % (name, times[name], meaning))' "$1" "$2"
}

main() {
    [[ $EUID -eq 0 ]] || die "a daemon starts as root; remedy: sudo make run"
    local host
    host=$(build/cloche doctor --state-dir "$RUN/state" --images build/images) ||
        { printf '%s\n' "$host"; die "this host lacks something (above)"; }
    say "this host"
    grep -E '^[a-z]+ +(kvm|cgroup|memory) ' <<<"$host"

    say "starting a daemon (the first time it boots the template once; that snapshot is kept)"
    start_daemon

    say "POST /v1/sandboxes {\"template\":\"python\"}"
    local made id ran
    made=$(call POST /v1/sandboxes --json '{"template":"python"}')
    id=$(field id <<<"$made")
    printf '   %s\n' "$id"

    say "PUT examples/analyse.py and examples/sales.csv ($(($(wc -l <examples/sales.csv) - 1)) rows)"
    for file in analyse.py sales.csv; do
        call PUT "/v1/sandboxes/$id/files?path=/workspace/$file" \
            --upload-file "examples/$file" >/dev/null
    done

    say "POST exec: python3 analyse.py sales.csv report.json"
    ! grep -q 'kvm.*software' <<<"$host" || printf '   (on software KVM this takes a while)\n'
    ran=$(call POST "/v1/sandboxes/$id/exec" \
        --json '{"argv":["python3","analyse.py","sales.csv","report.json"],"timeout_ms":120000}')
    printf '%s\n' "$(field stdout <<<"$ran")"
    [[ $(field exit_code <<<"$ran") == 0 ]] || die "the script failed: $(field stderr <<<"$ran")"

    say "GET /workspace/report.json"
    call GET "/v1/sandboxes/$id/files?path=/workspace/report.json" | sed -n 1,6p

    say "milliseconds from the arrival of each request"
    show_times "$made" "$ran"

    say "DELETE $id, stopping the daemon"
    call DELETE "/v1/sandboxes/$id" >/dev/null
    stop_daemon
    rm -f "$LOG"

    cat <<EOF

It works. From here:
   sudo build/cloche run -- python3 -c 'print(6 * 7)'    one command, nothing else to start
   sudo build/cloche serve                               a daemon that stays
   README.md                                             curl, Python, and what to expect
EOF
}

main
