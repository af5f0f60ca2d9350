#!/usr/bin/env bash
# run.sh PROGRAM SECONDS: fuzzes one target, starting from its seeds in tests/fuzz/corpus/NAME and from
# what earlier runs found (build/fuzz/corpus/NAME). A crashing input is left in build/fuzz/crashes.
set -euo pipefail

program=$1
seconds=$2
name=${program##*/fuzz_}
here=$(cd "$(dirname "$0")" && pwd)
found=build/fuzz/corpus/$name
mkdir -p "$found" build/fuzz/crashes
dirs=("$found")
[[ ! -d $here/corpus/$name ]] || dirs+=("$here/corpus/$name")
exec "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/crashes/$name-" "${dirs[@]}"
