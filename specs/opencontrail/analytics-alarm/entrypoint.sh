#!/bin/sh
# Writes the addresses of the other services into the configuration of the alarm generator, and becomes it.
#
#   HOST_IP                   the address of this host
#   COLLECTOR_SERVER          one or more collectors
#   KAFKA_SERVER              one or more brokers
#   ZOOKEEPER_SERVER          one or more coordinators
#   DISCOVERY_SERVER          the discovery service
#   REDIS_SERVER              the redis of the analytics
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

conf=/etc/contrail/contrail-alarm-gen.conf

put "$conf" DEFAULTS host_ip "${HOST_IP:-}"
put "$conf" DEFAULTS collectors "$(with_port "${COLLECTOR_SERVER:-}" 8086)"
put "$conf" DEFAULTS kafka_broker_list "$(with_port "${KAFKA_SERVER:-}" 9092)"
put "$conf" DEFAULTS zk_list "$(with_port "${ZOOKEEPER_SERVER:-}" 2181)"
put "$conf" DISCOVERY disc_server_ip "${DISCOVERY_SERVER:-}"
put "$conf" REDIS server "${REDIS_SERVER:-}"

exec "$@"
