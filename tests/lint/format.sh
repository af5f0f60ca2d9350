#!/usr/bin/env bash
# clang-format decides what C code looks like; `make format` mends what this finds.
set -euo pipefail

cd "$(dirname "$0")/../.."
mapfile -t files < <(find include src guest tests bench -name '*.[ch]' | sort)
clang-format --dry-run -Werror "${files[@]}"
