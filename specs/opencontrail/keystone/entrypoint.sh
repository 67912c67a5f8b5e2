#!/bin/sh
# Writes the container's variables into keystone's configuration, and becomes the server.
#
#   KEYSTONE_SERVER      the address under which clients reach keystone
#   MYSQL_SERVER         the database; without it, keystone keeps a file of its own in /var/lib/keystone
#   KEYSTONE_DB_NAME, KEYSTONE_DB_USER, KEYSTONE_DB_PASSWORD
#                        how to log in there; without them, keystone, keystone and ADMIN_PASSWORD
#   RABBIT_SERVER, RABBIT_USER, RABBIT_PASSWORD
#                        where notifications go; without the latter two, guest
#   MEMCACHED_SERVER     a cache, with its port if that is not 11211
#   ADMIN_PASSWORD       the administrator's password, for a database of keystone's own
#   ADMIN_TENANT, REGION the administrator's project, and the region; without them, admin and RegionOne
#   KEYSTONE_PROCESSES   how many processes answer; without it, 2
set -eu

conf=/etc/keystone/keystone.conf
server=/etc/keystone/keystone-uwsgi.ini
data=/var/lib/keystone

as_keystone() {
    setpriv --reuid=keystone --regid=keystone --init-groups "$@"
}

# A user's or a password's place in an address.
escaped() {
    python3 -c 'import sys, urllib.parse; print(urllib.parse.quote(sys.argv[1], safe=""))' "$1"
}

write_server() {
    # AppArmor belongs to the host. What is logged belongs to whoever runs the container.
    /openstack-config --set "$server" uwsgi plugins python3
    /openstack-config --del "$server" uwsgi apparmor-profile
    /openstack-config --del "$server" uwsgi logto
    /openstack-config --set "$server" uwsgi processes "${KEYSTONE_PROCESSES:-2}"
    /openstack-config --del "$conf" DEFAULT log_file
    /openstack-config --del "$conf" DEFAULT log_dir
}

write_variables() {
    if [ -n "${KEYSTONE_SERVER:-}" ]; then
        /openstack-config --set "$conf" DEFAULT public_endpoint "http://$KEYSTONE_SERVER:5000"
    fi
    if [ -n "${MYSQL_SERVER:-}" ]; then
        user=$(escaped "${KEYSTONE_DB_USER:-keystone}")
        password=$(escaped "${KEYSTONE_DB_PASSWORD:-${ADMIN_PASSWORD:-}}")
        address="mysql+pymysql://$user:$password@$MYSQL_SERVER/${KEYSTONE_DB_NAME:-keystone}"
        /openstack-config --set "$conf" database connection "$address"
    elif [ -z "$(/openstack-config --get "$conf" database connection || true)" ]; then
        /openstack-config --set "$conf" database connection "sqlite:///$data/keystone.sqlite"
    fi
    if [ -n "${RABBIT_SERVER:-}" ]; then
        user=$(escaped "${RABBIT_USER:-guest}")
        password=$(escaped "${RABBIT_PASSWORD:-guest}")
        /openstack-config --set "$conf" DEFAULT transport_url "rabbit://$user:$password@$RABBIT_SERVER:5672/"
    fi
    if [ -n "${MEMCACHED_SERVER:-}" ]; then
        case $MEMCACHED_SERVER in
            *:*) cache=$MEMCACHED_SERVER ;;
            *) cache=$MEMCACHED_SERVER:11211 ;;
        esac
        /openstack-config --set "$conf" cache enabled true
        /openstack-config --set "$conf" cache backend dogpile.cache.memcached
        /openstack-config --set "$conf" cache memcache_servers "$cache"
    fi
}

prepare_keys() {
    if [ ! -d /etc/keystone/fernet-keys ]; then
        keystone-manage fernet_setup --keystone-user keystone --keystone-group keystone
    fi
    if [ ! -d /etc/keystone/credential-keys ]; then
        keystone-manage credential_setup --keystone-user keystone --keystone-group keystone
    fi
}

# A database on a server belongs to whoever set it up; one of our own is made at the first start.
prepare_database() {
    case $(/openstack-config --get "$conf" database connection) in
        sqlite:*) ;;
        *) return 0 ;;
    esac
    as_keystone keystone-manage db_sync
    if [ -n "${ADMIN_PASSWORD:-}" ]; then
        address="http://${KEYSTONE_SERVER:-localhost}:5000/v3/"
        OS_BOOTSTRAP_PASSWORD=$ADMIN_PASSWORD as_keystone keystone-manage bootstrap \
            --bootstrap-project-name "${ADMIN_TENANT:-admin}" --bootstrap-region-id "${REGION:-RegionOne}" \
            --bootstrap-public-url "$address" --bootstrap-internal-url "$address" --bootstrap-admin-url "$address"
    fi
}

case ${1:-} in
    */uwsgi* | uwsgi*)
        # A volume arrives with whatever owner it has on the host.
        chown keystone:keystone "$data"
        write_server
        write_variables
        prepare_keys
        prepare_database
        ;;
esac

exec "$@"
