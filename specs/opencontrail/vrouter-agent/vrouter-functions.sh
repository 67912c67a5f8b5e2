# Functions of the vRouter's entry point; read by it, not run.

# Loads the kernel module: the host's, or the one that was brought for a host without it.
load_vrouter() {
    if grep -q '^vrouter ' /proc/modules; then
        return 0
    fi
    if [ -e /etc/redhat-release ]; then
        insmod /rhel-vrouter/vrouter.ko
    else
        modprobe vrouter
    fi
}

# create_vhost0 INTERFACE: makes the interface of the host, on top of INTERFACE.
create_vhost0() {
    if [ -e /sys/class/net/vhost0 ]; then
        return 0
    fi
    vif --create vhost0 --mac "$(cat "/sys/class/net/$1/address")"
    vif --add "$1" --mac "$(cat "/sys/class/net/$1/address")" --vrf 0 --vhost-phys --type physical
    vif --add vhost0 --mac "$(cat "/sys/class/net/$1/address")" --vrf 0 --type vhost --xconnect "$1"
    ip link set vhost0 up
}
