#!/bin/sh
# Writes the addresses of the other services into nova's configuration, and becomes the process: the same for all of nova's
# processes on a controller.
#
#   MYSQL_SERVER              the database
#   NOVA_DB_NAME, NOVA_DB_USER, NOVA_DB_PASSWORD
#                             how to log in there; without them, nova, nova and SERVICE_PASSWORD
#   RABBIT_SERVER             the message broker
#   RABBIT_USER, RABBIT_PASSWORD
#                             how to log in there
#   KEYSTONE_SERVER           the identity service
#   SERVICE_PASSWORD, SERVICE_TENANT
#                             how nova logs in there, as nova, and to the placement service, as placement; without
#                             the tenant, service
#   HOST_IP                   the address of this host
#   MEMCACHED_SERVER          a cache, with its port
#   NEUTRON_SERVER            the network service
#   METADATA_SECRET           what the metadata proxies share
#   GLANCE_SERVER             the image service
#   VNC_HOST                  the address under which browsers reach the consoles
#
# A variable that is not set leaves the configuration as the package ships it.
set -eu

# put FILE SECTION KEY VALUE: writes VALUE, unless it is empty.
put() {
    if [ -n "$4" ]; then
        /openstack-config --set "$@"
    fi
}

# A user's or a password's place in an address.
escaped() {
    python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$1"
}

# The address of the database NAME.
database() {
    if [ -n "${MYSQL_SERVER:-}" ]; then
        user=$(escaped "${NOVA_DB_USER:-nova}")
        password=$(escaped "${NOVA_DB_PASSWORD:-${SERVICE_PASSWORD:-}}")
        printf 'mysql+pymysql://%s:%s@%s/%s' "$user" "$password" "$MYSQL_SERVER" "$1"
    fi
}

broker() {
    if [ -n "${RABBIT_SERVER:-}" ]; then
        user=$(escaped "${RABBIT_USER:-guest}")
        password=$(escaped "${RABBIT_PASSWORD:-guest}")
        printf 'rabbit://%s:%s@%s:5672/' "$user" "$password" "$RABBIT_SERVER"
    fi
}

# login FILE SECTION USER: how to log in to the identity service.
login() {
    if [ -z "${KEYSTONE_SERVER:-}" ]; then
        return 0
    fi
    put "$1" "$2" auth_url "http://$KEYSTONE_SERVER:5000"
    put "$1" "$2" auth_type password
    put "$1" "$2" project_domain_name Default
    put "$1" "$2" user_domain_name Default
    put "$1" "$2" project_name "${SERVICE_TENANT:-service}"
    put "$1" "$2" username "$3"
    put "$1" "$2" password "${SERVICE_PASSWORD:-}"
}

conf=/etc/nova/nova.conf

put "$conf" DEFAULT my_ip "${HOST_IP:-}"
put "$conf" DEFAULT transport_url "$(broker)"
put "$conf" database connection "$(database "${NOVA_DB_NAME:-nova}")"
put "$conf" api_database connection "$(database "${NOVA_DB_NAME:-nova}_api")"
put "$conf" api auth_strategy "${KEYSTONE_SERVER:+keystone}"
login "$conf" keystone_authtoken nova
put "$conf" keystone_authtoken memcached_servers "${MEMCACHED_SERVER:-}"
login "$conf" placement placement
if [ -n "${NEUTRON_SERVER:-}" ]; then
    put "$conf" neutron endpoint_override "http://$NEUTRON_SERVER:9696"
    login "$conf" neutron neutron
    put "$conf" neutron metadata_proxy_shared_secret "${METADATA_SECRET:-}"
fi
put "$conf" glance api_servers "${GLANCE_SERVER:+http://$GLANCE_SERVER:9292}"
put "$conf" vnc novncproxy_base_url "${VNC_HOST:+http://$VNC_HOST:6080/vnc_lite.html}"

exec "$@"
