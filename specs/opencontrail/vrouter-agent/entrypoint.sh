#!/bin/sh
# Writes the addresses of the other services into the configuration of the vRouter's agent, loads the kernel module, and
# becomes the agent.
#
#   HOST_IP                   the address of this host
#   DISCOVERY_SERVER          the discovery service
#   CONTROL_SERVER            one or two control nodes, if there is no discovery service
#   HYPERVISOR_TYPE           kvm, or none
#   PHYSICAL_INTERFACE        the interface that carries the tunnels; without it, the host's network stays as it is
#   VROUTER_CIDR, VROUTER_GATEWAY
#                             the address of vhost0 with its prefix length, and its gateway
#   METADATA_SECRET           what the metadata proxies share
#
# A variable that is not set leaves the configuration as the package ships it.
set -eu

# put FILE SECTION KEY VALUE: writes VALUE, unless it is empty.
put() {
    if [ -n "$4" ]; then
        /openstack-config --set "$@"
    fi
}

conf=/etc/contrail/contrail-vrouter-agent.conf

put "$conf" NETWORKS control_network_ip "${HOST_IP:-}"
put "$conf" DISCOVERY server "${DISCOVERY_SERVER:-}"
put "$conf" CONTROL-NODE server "${CONTROL_SERVER:-}"
put "$conf" HYPERVISOR type "${HYPERVISOR_TYPE:-}"
put "$conf" METADATA metadata_proxy_secret "${METADATA_SECRET:-}"
if [ -n "${PHYSICAL_INTERFACE:-}" ]; then
    put "$conf" VIRTUAL-HOST-INTERFACE name vhost0
    put "$conf" VIRTUAL-HOST-INTERFACE physical_interface "$PHYSICAL_INTERFACE"
    put "$conf" VIRTUAL-HOST-INTERFACE ip "${VROUTER_CIDR:-}"
    put "$conf" VIRTUAL-HOST-INTERFACE gateway "${VROUTER_GATEWAY:-}"
    # The functions are the package's; with an interface they need the host's network and the right to change it.
    # shellcheck source-path=SCRIPTDIR source=vrouter-functions.sh
    . /vrouter-functions.sh
    load_vrouter
    create_vhost0 "$PHYSICAL_INTERFACE"
fi

exec "$@"
