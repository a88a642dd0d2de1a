#!/usr/bin/env bash
# Opens every report.html and index.html below a folder in a real browser, in light and dark, on a
# page and on a phone, and looks for what a reader would stumble over: messages on the console,
# requests to anywhere else, charts that do not show, words that overlap, pages wider than the screen.
#
#   scripts/check-reports.sh DIR                 says what is wrong; exit 1 when something is
#   scripts/check-reports.sh DIR --screenshots   also leaves pictures beside each page
#   scripts/check-reports.sh DIR --self-test     breaks copies of a report; exit 1 when that goes
#                                                unnoticed
#
# Needs Chromium and Python 3 (nothing from PyPI). On Debian, as root, what is missing is installed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

say() { printf 'check-reports: %s\n' "$*" >&2; }

usage() {
    say "usage: check-reports.sh DIR [--screenshots | --self-test]"
    exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] && [ -d "$1" ] || usage
case "${2:-}" in '' | --screenshots | --self-test) ;; *) usage ;; esac

# The first of some commands that is there.
first_of() {
    local name
    for name in "$@"; do
        command -v "$name" && return 0
    done
    return 1
}

find_browser() {
    first_of ${CHROMIUM:+"$CHROMIUM"} chromium chromium-browser google-chrome google-chrome-stable
}

missing=()
find_browser >/dev/null || missing+=(chromium)
command -v python3 >/dev/null || missing+=(python3)
if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "missing: ${missing[*]}; install it (Debian: apt-get install ${missing[*]})," \
            "or name a browser in CHROMIUM="
        exit 1
    fi
    say "installing ${missing[*]} with apt-get"
    apt-get update -qq >&2 || say "apt-get update failed; trying with the lists that are there"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi

exec python3 "$here/check-reports.py" "$(find_browser)" "$@"
