#!/usr/bin/env bash
# Runs shellcheck over every shell script: those named *.sh and those with a shell's first line.
set -euo pipefail

cd "$(dirname "$0")/../.."
mapfile -t files < <(find . \( -path ./build -o -path ./.git \) -prune -o -type f -print0 |
    xargs -0 grep -lIE -m1 '^#!.*[/ ](ba|da)?sh( |$)|^# shellcheck shell=' | sort)
[[ ${#files[@]} -gt 0 ]]
shellcheck -x -P SCRIPTDIR "${files[@]}"
