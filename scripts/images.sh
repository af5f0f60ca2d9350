#!/usr/bin/env bash
# images.sh OUT: makes what a guest needs and assembles it under OUT: `vmlinux`, and one folder for each
# template. They are links into the cache where the builders keep their results, so a second call
# takes no time.
set -euo pipefail

out=$1
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"

# link TARGET NAME: by rename, so that a daemon that is starting never sees the name missing.
link() {
    ln -sfn "$1" "$out/.new-$2"
    mv -T "$out/.new-$2" "$out/$2"
}

kernel=$("$top/images/kernel/build.sh")
link "$kernel" vmlinux
for template in base python; do
    dir=$("$top/images/rootfs/build.sh" "$template")
    link "$dir" "$template"
done
