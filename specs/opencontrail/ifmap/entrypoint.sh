#!/bin/sh
# Writes who may log in into the configuration of the IF-MAP server, and becomes it.
#
#   CONTROL_SERVER            one or more control nodes; each may log in by its address, and as its name service
#   IFMAP_LISTEN_IP           the address to listen on
#
# A variable that is not set leaves the configuration as the package ships it.
set -eu

users=/etc/ifmap-server/basicauthusers.properties
conf=/etc/ifmap-server/ifmap.properties

add_user() {
    if ! grep -q "^$1:" "$users" 2>/dev/null; then
        printf '%s:%s\n' "$1" "$2" >>"$users"
    fi
}

for address in $(printf '%s' "${CONTROL_SERVER:-}" | tr ',' ' '); do
    add_user "$address" "$address"
    add_user "$address.dns" "$address"
done

if [ -n "${IFMAP_LISTEN_IP:-}" ]; then
    sed -i '/^irond\.comm\.basicauth\.host=/d' "$conf"
    printf 'irond.comm.basicauth.host=%s\n' "$IFMAP_LISTEN_IP" >>"$conf"
fi

exec "$@"
