#!/usr/bin/env bash
# initramfs.sh AGENT OUT: packs the agent as /init into a newc cpio, the same bytes for the same agent
# (unpacking costs the guest time by the byte, so nothing else is in it).
set -euo pipefail

agent=$(realpath "$1")
out=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install -m 0755 "$agent" "$work/init"
strip "$work/init"
touch -d @0 "$work/init" "$work"
(cd "$work" && echo init | cpio -o -H newc --reproducible -R 0:0 --quiet) > "$out.new"
mv "$out.new" "$out"
