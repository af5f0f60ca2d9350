#!/usr/bin/env bash
# run.sh PROGRAM SECONDS: fuzzes one target, starting from its seeds in tests/fuzz/corpus/NAME and
# from what earlier runs found (build/fuzz/corpus/NAME). A crashing input is left in
# build/fuzz/crashes.
# run.sh --replay PROGRAM: runs its seeds once each, and nothing else.
# A target without seeds has failed either way.
set -euo pipefail

usage="usage: run.sh PROGRAM SECONDS | run.sh --replay PROGRAM"
replay=false
if [[ ${1-} == --replay ]]; then
    replay=true
    shift
fi
program=${1:?$usage}
name=${program##*/fuzz_}
seeds=$(cd "$(dirname "$0")" && pwd)/corpus/$name
# libFuzzer would say 77 of a crash, which means "skipped" here.
options=(-error_exitcode=1 -timeout=10 -rss_limit_mb=2048)

shopt -s nullglob
files=("$seeds"/*)
if ((${#files[@]} == 0)); then
    echo "fuzz_$name: no seeds in tests/fuzz/corpus/$name" >&2
    exit 1
fi
if $replay; then
    exec "$program" "${options[@]}" "${files[@]}"
fi
seconds=${2:?$usage}
found=build/fuzz/corpus/$name
mkdir -p "$found" build/fuzz/crashes
exec "$program" "${options[@]}" -max_total_time="$seconds" -print_final_stats=1 \
    -artifact_prefix="build/fuzz/crashes/$name-" "$found" "$seeds"
