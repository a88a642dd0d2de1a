#!/usr/bin/env bash
# Certificates for a cluster: an authority, one certificate for each node, one for each client.
# Needs openssl. Run it on a machine of its own: whoever has ca.key is every node and every client.
#
#   certificates.sh DIR ca                      makes DIR/ca.crt and DIR/ca.key
#   certificates.sh DIR node N HOST|IP ...      makes DIR/nN.crt and DIR/nN.key
#   certificates.sh DIR client NAME             makes DIR/NAME.crt and DIR/NAME.key
#   certificates.sh DIR show                    who is who, and until when
#
# A node's certificate has the name nN.node.meridian, by which other nodes know it, and the names and
# addresses under which clients connect to it. A client's has neither and is no node. Files that exist
# are kept: a second run for the same node or client renews the certificate and keeps the key. Servers
# read renewed files by themselves within a minute.
#
#   CA_DAYS      how long the authority is good for (3650)
#   DAYS         how long a certificate is (365)
set -euo pipefail
umask 077

say() { printf 'certificates: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}" >&2; exit 2; }

[ $# -ge 2 ] || usage
command -v openssl >/dev/null || die "openssl is missing"
DIR=$1 WHAT=$2
shift 2

# P-256: small, and known to every library.
new_key() {
    [ -e "$1" ] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# sign NAME SUBJECT USAGE ALTERNATIVE-NAMES
sign() {
    local name=$1 subject=$2 usage=$3 names=$4
    [ -e "$DIR/ca.key" ] || die "there is no authority in $DIR; make one: $0 $DIR ca"
    new_key "$DIR/$name.key"
    {
        echo "basicConstraints = critical, CA:FALSE"
        echo "keyUsage = critical, digitalSignature"
        echo "extendedKeyUsage = $usage"
        echo "subjectAltName = $names"
    } >"$DIR/.extensions"
    # The serial number is drawn at random, so that nobody has to keep count.
    openssl req -new -key "$DIR/$name.key" -subj "$subject" \
        | openssl x509 -req -CA "$DIR/ca.crt" -CAkey "$DIR/ca.key" -sha256 \
            -set_serial "0x$(openssl rand -hex 16 | sed 's/^[89a-f]/7/')" \
            -days "${DAYS:-365}" -extfile "$DIR/.extensions" -out "$DIR/.new.crt" 2>/dev/null \
        || die "openssl could not sign $name"
    rm -f "$DIR/.extensions"
    chmod 644 "$DIR/.new.crt"
    mv "$DIR/.new.crt" "$DIR/$name.crt"
    say "$DIR/$name.crt and $DIR/$name.key: $names"
}

case $WHAT in
ca)
    mkdir -p "$DIR"
    [ ! -e "$DIR/ca.key" ] || die "$DIR/ca.key exists; another authority would cut everybody off"
    new_key "$DIR/ca.key"
    openssl req -x509 -new -key "$DIR/ca.key" -sha256 -days "${CA_DAYS:-3650}" \
        -subj "/CN=Meridian cluster authority" -out "$DIR/ca.crt" \
        -addext "keyUsage = critical, keyCertSign, cRLSign"
    chmod 644 "$DIR/ca.crt"
    say "$DIR/ca.crt goes to nodes and clients; $DIR/ca.key stays where it is"
    ;;
node)
    [ $# -ge 2 ] || usage
    case $1 in *[!0-9]* | 0*) die "a node's number is 1 or more, not '$1'" ;; esac
    node=$1 names="DNS:n$1.node.meridian"
    shift
    for host in "$@"; do
        # An address is in numbers, with dots or colons; everything else is a name.
        case $host in
        *:*) names+=",IP:${host//[\[\]]/}" ;;
        *[!0-9.]*) names+=",DNS:$host" ;;
        *) names+=",IP:$host" ;;
        esac
    done
    sign "n$node" "/CN=n$node" "serverAuth, clientAuth" "$names"
    ;;
client)
    [ $# -eq 1 ] || usage
    case $1 in
    ca | n[0-9]* | *[!A-Za-z0-9_-]*) die "'$1' is no name for a client: letters, digits, - and _" ;;
    esac
    sign "$1" "/CN=$1" "clientAuth" "DNS:$1.client.meridian"
    ;;
show)
    for file in "$DIR"/*.crt; do
        [ -e "$file" ] || die "there are no certificates in $DIR"
        end=$(openssl x509 -in "$file" -noout -enddate)
        names=$(openssl x509 -in "$file" -noout -ext subjectAltName 2>/dev/null | sed '1d;s/^ *//')
        printf '%-24s until %s  %s\n' "${file##*/}" "${end#notAfter=}" "$names"
    done
    ;;
*) usage ;;
esac
