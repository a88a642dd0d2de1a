#!/bin/bash
# Exit code 0 while the server of this container says that it is well. The image has no curl, and
# needs none: bash can speak to a port.
#
#   healthcheck.sh [PAGE]        /healthz (the default), or /readyz
set -uo pipefail
address=${MERIDIAN_HTTP:-127.0.0.1:8100}
exec 3<>"/dev/tcp/127.0.0.1/${address##*:}" || exit 1
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${1:-/healthz}" >&3
answer=$(timeout 3 cat <&3)
echo "${answer##*$'\r\n'}"
[[ $answer == HTTP/1.1\ 200\ * ]]
