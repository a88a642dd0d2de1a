#!/usr/bin/env bash
# What three servers with many groups cost while nothing happens: processor, messages, memory.
# Usage: idle-cost.sh PATH/TO/meridian [GROUPS [SECONDS]]     (1000 groups, 30 seconds)
#
# Servers run on loopback from a temporary folder; both are gone in the end. Needs curl.
set -euo pipefail

MERIDIAN=${1:?usage: idle-cost.sh PATH/TO/meridian [GROUPS [SECONDS]]}
GROUPS_WANTED=${2:-1000}
SECONDS_MEASURED=${3:-30}
BASE_PORT=${IDLE_PORT:-21100}
TICKS=$(getconf CLK_TCK)

FOLDER=$(mktemp -d)
PIDS=()
cleanup() {
    for pid in "${PIDS[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$FOLDER"
}
trap cleanup EXIT

server() { # NODE ARGUMENTS…
    local node=$1 port=$((BASE_PORT + $1))
    shift
    "$MERIDIAN" server --node "$node" --zone "z$node" --data "$FOLDER/n$node" \
        --listen "127.0.0.1:$port" --http "127.0.0.1:$((port + 1000))" "$@" \
        >>"$FOLDER/n$node.log" 2>&1 &
    PIDS+=($!)
}

page() { curl -sf "http://127.0.0.1:$((BASE_PORT + 1000 + $1))/metrics" || true; }
metric() { page "$1" | awk -v name="$2" '$1 == name { print $2; found = 1 } END { if (!found) print 0 }'; }
sent() { page "$1" | awk '/^meridian_peer_messages_sent_total[{]/ { n += $2 } END { print n + 0 }'; }
# utime and stime; the name in parentheses before them may have spaces
ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }
memory_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

server 1 --init --groups "$GROUPS_WANTED"
for node in 2 3; do server "$node" --join "127.0.0.1:$((BASE_PORT + 1))"; done

# Every group on all three, and asleep but for the root group, to which heartbeats of nodes go.
began=$(date +%s)
while :; do
    settled=0
    for node in 1 2 3; do
        [ "$(metric "$node" meridian_replicas)" = $((GROUPS_WANTED + 1)) ] &&
            [ "$(metric "$node" meridian_replicas_asleep)" -ge "$GROUPS_WANTED" ] &&
            [ "$(metric "$node" meridian_groups_without_leader)" = 0 ] && settled=$((settled + 1))
    done
    [ "$settled" = 3 ] && break
    if [ $(($(date +%s) - began)) -gt 300 ]; then
        for node in 1 2 3; do
            echo "n$node: $(metric "$node" meridian_replicas) replicas," \
                "$(metric "$node" meridian_replicas_asleep) asleep" >&2
        done
        echo "idle-cost: the groups do not come to rest" >&2
        exit 1
    fi
    sleep 1
done
echo "groups $GROUPS_WANTED, at rest after $(($(date +%s) - began)) s"

declare -a ticks_before sent_before
for node in 1 2 3; do
    ticks_before[node]=$(ticks "${PIDS[node - 1]}")
    sent_before[node]=$(sent "$node")
done
sleep "$SECONDS_MEASURED"
echo "node  led   cpu %   messages/s   memory MB"
for node in 1 2 3; do
    pid=${PIDS[node - 1]}
    awk -v node="$node" -v led="$(metric "$node" meridian_groups_led)" \
        -v ticks=$(($(ticks "$pid") - ticks_before[node])) -v per="$TICKS" \
        -v sent=$(($(sent "$node") - sent_before[node])) -v kb="$(memory_kb "$pid")" \
        -v seconds="$SECONDS_MEASURED" 'BEGIN {
            printf "n%d  %5d  %6.2f  %11.1f  %10.1f\n", node, led, 100 * ticks / per / seconds,
                sent / seconds, kb / 1024 }'
done
