#!/bin/sh
# Writes the addresses of the other services into the configuration of the discovery service, and becomes it.
#
#   CASSANDRA_SERVER          one or more databases
#   ZOOKEEPER_SERVER          one or more coordinators
#
# A variable that is not set leaves the configuration as the package ships it.
set -eu

# put FILE SECTION KEY VALUE: writes VALUE, unless it is empty.
put() {
    if [ -n "$4" ]; then
        /openstack-config --set "$@"
    fi
}

# with_port LIST PORT: each address of LIST, between commas or blanks, with PORT behind it; blanks between them.
with_port() {
    list=
    for address in $(printf '%s' "$1" | tr ',' ' '); do
        list="$list${list:+ }$address:$2"
    done
    printf '%s' "$list"
}

conf=/etc/contrail/contrail-discovery.conf

put "$conf" DEFAULTS cassandra_server_list "$(with_port "${CASSANDRA_SERVER:-}" 9160)"
put "$conf" DEFAULTS zk_server_ip "$(printf '%s' "${ZOOKEEPER_SERVER:-}" | tr ' ' ',')"

exec "$@"
