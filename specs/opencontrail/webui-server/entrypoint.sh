#!/bin/sh
# Writes the addresses of the other services into the web interface's configuration, and becomes the process.
#
#   KEYSTONE_SERVER, NEUTRON_SERVER, GLANCE_SERVER, NOVA_SERVER, CINDER_SERVER
#   CONFIG_API_SERVER, ANALYTICS_API_SERVER, DISCOVERY_SERVER, REDIS_SERVER, JOB_SERVER
#                       a name or an address each
#   CASSANDRA_SERVER    one or more of them, between commas or blanks
#
# One that is not set leaves the configuration as it is.
set -eu

conf=/etc/contrail/config.global.js

# The values become part of a program; names and addresses need no other letters.
check() {
    case $2 in
        *[!A-Za-z0-9._:-]*)
            echo "entrypoint: $1 is not a host name or an address: $2" >&2
            exit 64
            ;;
    esac
}

# assign KEY VALUE: replaces the line that sets config.KEY. Not sed -i: the file may be mounted from outside.
assign() {
    changed=$(sed "s|^config\\.$1 = .*|config.$1 = $2;|" "$conf")
    printf '%s\n' "$changed" >"$conf"
}

server() {
    if [ -n "$3" ]; then
        check "$1" "$3"
        assign "$2" "'$3'"
    fi
}

cassandra() {
    list=
    for address in $(printf '%s' "$1" | tr ',' ' '); do
        check CASSANDRA_SERVER "$address"
        list="$list${list:+, }'$address'"
    done
    if [ -n "$list" ]; then
        assign cassandra.server_ips "[$list]"
    fi
}

server KEYSTONE_SERVER identityManager.ip "${KEYSTONE_SERVER:-}"
server NEUTRON_SERVER networkManager.ip "${NEUTRON_SERVER:-}"
server GLANCE_SERVER imageManager.ip "${GLANCE_SERVER:-}"
server NOVA_SERVER computeManager.ip "${NOVA_SERVER:-}"
server CINDER_SERVER storageManager.ip "${CINDER_SERVER:-}"
server CONFIG_API_SERVER cnfg.server_ip "${CONFIG_API_SERVER:-}"
server ANALYTICS_API_SERVER analytics.server_ip "${ANALYTICS_API_SERVER:-}"
server DISCOVERY_SERVER discoveryService.server_ip "${DISCOVERY_SERVER:-}"
server REDIS_SERVER redis_server_ip "${REDIS_SERVER:-}"
server JOB_SERVER jobServer.server_ip "${JOB_SERVER:-}"
cassandra "${CASSANDRA_SERVER:-}"

exec "$@"
