#!/usr/bin/env bash
# A universe with three replicas on this machine, two weeks of flights out of New York in it, and
# a prompt. Called by `make demo`, which has built the binary; usage: demo.sh PATH/TO/meridian
#
#   DEMO_DATA   the folder of the universe (meridian-data/demo); a complete one is used again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MERIDIAN=${1:?usage: demo.sh PATH/TO/meridian}
DATA=${DEMO_DATA:-meridian-data/demo}
FLIGHTS=examples/flights
# Beside the folder, which belongs to the database: "loading", then "loaded".
STATE=${DATA%/}.state

say() { printf 'demo: %s\n' "$*" >&2; }

state() { cat "$STATE" 2>/dev/null || true; }

if [ -d "$DATA" ] && [ "$(state)" = loaded ]; then
    say "using the universe in $DATA (remove the folder to start afresh)"
else
    # Only what an interrupted demo left is ours to remove.
    if [ -e "$DATA" ] && [ "$(state)" != loading ]; then
        say "$DATA exists and is not a demo's folder; choose another with DEMO_DATA="
        exit 1
    fi
    rm -rf "$DATA"
    mkdir -p "$(dirname "$DATA")"
    echo loading >"$STATE"
    say "creating a universe with three replicas in $DATA"
    "$MERIDIAN" sql --data "$DATA" --replicas 3 -f "$FLIGHTS/schema.sql"
    # Parents before children: a flight needs its airline.
    for table in airlines airports planes weather flights; do
        file=$FLIGHTS/$table.csv
        [ -f "$file" ] || file=$file.gz
        say "loading $table"
        "$MERIDIAN" import --data "$DATA" --table "$table" --null NA "$file"
    done
    echo loaded >"$STATE"
fi

if [ -t 0 ]; then
    cat >&2 <<HINT

  Try:  SELECT carrier, COUNT(*) AS flights FROM flights GROUP BY carrier ORDER BY flights DESC;
  A guided tour is in $FLIGHTS/tour.sql; run it without a prompt: make demo </dev/null
  Leave with Ctrl-D. The universe stays in $DATA.

HINT
    exec "$MERIDIAN" sql --data "$DATA"
fi
exec "$MERIDIAN" sql --data "$DATA" -f "$FLIGHTS/tour.sql"
