#!/bin/sh
# Writes the addresses of the other services into the configuration of the image registry, and becomes it.
#
#   MYSQL_SERVER              the database
#   GLANCE_DB_NAME, GLANCE_DB_USER, GLANCE_DB_PASSWORD
#                             how to log in there; without them, glance, glance and SERVICE_PASSWORD
#   RABBIT_SERVER             the message broker
#   RABBIT_USER, RABBIT_PASSWORD
#                             how to log in there
#   KEYSTONE_SERVER           the identity service
#   SERVICE_PASSWORD, SERVICE_TENANT
#                             how glance logs in there, as glance; without the tenant, service
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
        user=$(escaped "${GLANCE_DB_USER:-glance}")
        password=$(escaped "${GLANCE_DB_PASSWORD:-${SERVICE_PASSWORD:-}}")
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

conf=/etc/glance/glance-registry.conf

put "$conf" DEFAULT transport_url "$(broker)"
put "$conf" database connection "$(database "${GLANCE_DB_NAME:-glance}")"
login "$conf" keystone_authtoken glance
put "$conf" paste_deploy flavor "${KEYSTONE_SERVER:+keystone}"

exec "$@"
