#!/bin/sh
# Writes the addresses of the other services into the configuration of the network service, and becomes it.
#
#   MYSQL_SERVER              the database
#   NEUTRON_DB_NAME, NEUTRON_DB_USER, NEUTRON_DB_PASSWORD
#                             how to log in there; without them, neutron, neutron and SERVICE_PASSWORD
#   RABBIT_SERVER             the message broker
#   RABBIT_USER, RABBIT_PASSWORD
#                             how to log in there
#   KEYSTONE_SERVER           the identity service
#   SERVICE_PASSWORD, SERVICE_TENANT
#                             how neutron logs in there, as neutron; without the tenant, service
#   NOVA_SERVER               the compute service
#   CONFIG_API_SERVER         the API server of the configuration
#   ANALYTICS_API_SERVER      the API server of the analytics
#   ADMIN_USER, ADMIN_PASSWORD, ADMIN_TENANT
#                             who logs in there; without the first and last, admin
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
        user=$(escaped "${NEUTRON_DB_USER:-neutron}")
        password=$(escaped "${NEUTRON_DB_PASSWORD:-${SERVICE_PASSWORD:-}}")
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

conf=/etc/neutron/neutron.conf
plugin=/etc/neutron/plugins/opencontrail/ContrailPlugin.ini

put "$conf" DEFAULT transport_url "$(broker)"
put "$conf" DEFAULT auth_strategy "${KEYSTONE_SERVER:+keystone}"
put "$conf" database connection "$(database "${NEUTRON_DB_NAME:-neutron}")"
login "$conf" keystone_authtoken neutron
if [ -n "${NOVA_SERVER:-}" ]; then
    put "$conf" nova endpoint_override "http://$NOVA_SERVER:8774/v2.1"
    login "$conf" nova nova
fi
put "$plugin" APISERVER api_server_ip "${CONFIG_API_SERVER:-}"
put "$plugin" COLLECTOR analytics_api_ip "${ANALYTICS_API_SERVER:-}"
if [ -n "${KEYSTONE_SERVER:-}" ]; then
    put "$plugin" KEYSTONE auth_url "http://$KEYSTONE_SERVER:5000/v3"
    put "$plugin" KEYSTONE admin_user "${ADMIN_USER:-admin}"
    put "$plugin" KEYSTONE admin_password "${ADMIN_PASSWORD:-}"
    put "$plugin" KEYSTONE admin_tenant_name "${ADMIN_TENANT:-admin}"
fi

exec "$@"
