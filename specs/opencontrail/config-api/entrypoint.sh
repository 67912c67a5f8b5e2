#!/bin/sh
# Writes the addresses of the other services into the configuration of the API server, and becomes it.
#
#   HOST_IP                   the address of this host
#   IFMAP_SERVER              the IF-MAP server
#   CASSANDRA_SERVER          one or more databases
#   ZOOKEEPER_SERVER          one or more coordinators
#   RABBIT_SERVER             the message broker
#   RABBIT_USER, RABBIT_PASSWORD
#                             how to log in there
#   DISCOVERY_SERVER          the discovery service
#   KEYSTONE_SERVER           the identity service
#   ADMIN_USER, ADMIN_PASSWORD, ADMIN_TENANT
#                             who logs in there; without the first and last, admin
#   MEMCACHED_SERVER          a cache, with its port
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

conf=/etc/contrail/contrail-api.conf
auth=/etc/contrail/contrail-keystone-auth.conf

put "$conf" DEFAULTS host_ip "${HOST_IP:-}"
put "$conf" DEFAULTS ifmap_server_ip "${IFMAP_SERVER:-}"
put "$conf" DEFAULTS cassandra_server_list "$(with_port "${CASSANDRA_SERVER:-}" 9160)"
put "$conf" DEFAULTS zk_server_ip "$(with_port "${ZOOKEEPER_SERVER:-}" 2181 | tr ' ' ',')"
put "$conf" DEFAULTS rabbit_server "${RABBIT_SERVER:-}"
put "$conf" DEFAULTS rabbit_user "${RABBIT_USER:-}"
put "$conf" DEFAULTS rabbit_password "${RABBIT_PASSWORD:-}"
put "$conf" DEFAULTS disc_server_ip "${DISCOVERY_SERVER:-}"
put "$auth" KEYSTONE auth_host "${KEYSTONE_SERVER:-}"
if [ -n "${KEYSTONE_SERVER:-}" ]; then
    put "$auth" KEYSTONE auth_protocol http
    put "$auth" KEYSTONE auth_port 5000
    put "$auth" KEYSTONE admin_user "${ADMIN_USER:-admin}"
    put "$auth" KEYSTONE admin_password "${ADMIN_PASSWORD:-}"
    put "$auth" KEYSTONE admin_tenant_name "${ADMIN_TENANT:-admin}"
fi
put "$auth" KEYSTONE memcache_servers "${MEMCACHED_SERVER:-}"

exec "$@"
