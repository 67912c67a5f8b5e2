#!/bin/sh
# Writes the addresses of the other services into the configuration of the name service, and becomes it.
#
#   HOST_IP                   the address of this host
#   IFMAP_SERVER              the IF-MAP server
#   IFMAP_USER, IFMAP_PASSWORD
#                             how to log in there; without them, made from HOST_IP
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

conf=/etc/contrail/contrail-dns.conf

put "$conf" DEFAULT hostip "${HOST_IP:-}"
put "$conf" DISCOVERY server "${DISCOVERY_SERVER:-}"
put "$conf" IFMAP server_url "${IFMAP_SERVER:+https://$IFMAP_SERVER:8443}"
put "$conf" IFMAP user "${IFMAP_USER:-${HOST_IP:+$HOST_IP.dns}}"
put "$conf" IFMAP password "${IFMAP_PASSWORD:-${HOST_IP:-}}"

exec "$@"
