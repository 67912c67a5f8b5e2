#!/bin/sh
# Writes the addresses of the other services into the configuration of the SNMP collector, and becomes it.
#
#   COLLECTOR_SERVER          one or more collectors
#   ZOOKEEPER_SERVER          one or more coordinators
#   DISCOVERY_SERVER          the discovery service
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

conf=/etc/contrail/contrail-snmp-collector.conf
devices=/etc/contrail/device.ini

# The command names this file, and no package brings it. Empty, it means: no device beyond those that are configured.
if [ ! -e "$devices" ]; then
    : >"$devices"
fi
put "$conf" DEFAULTS collectors "$(with_port "${COLLECTOR_SERVER:-}" 8086)"
put "$conf" DEFAULTS zookeeper "$(with_port "${ZOOKEEPER_SERVER:-}" 2181)"
put "$conf" DISCOVERY disc_server_ip "${DISCOVERY_SERVER:-}"

exec "$@"
