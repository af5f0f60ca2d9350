#!/usr/bin/env bash
# install.sh BINARY IMAGES PREFIX: copies cloche to PREFIX/bin and the guest images to
# PREFIX/lib/cloche/images, each file by rename, so that a daemon that runs keeps its old ones.
set -euo pipefail

binary=$1
images=$2
prefix=$3

[[ -x $binary && -e $images/vmlinux ]] || {
    printf 'install: nothing to install yet; remedy: make all images\n' >&2
    exit 1
}
install -D -m 0755 "$(realpath "$binary")" "$prefix/bin/cloche.new"
mv -T "$prefix/bin/cloche.new" "$prefix/bin/cloche"
(cd "$images" && find -L . -type f ! -name '.*' -print0) | while IFS= read -r -d '' file; do
    target=$prefix/lib/cloche/images/${file#./}
    install -D -m 0644 "$images/$file" "$target.new"
    mv -T "$target.new" "$target"
done
printf 'installed %s and %s\n' "$prefix/bin/cloche" "$prefix/lib/cloche/images"
