#!/bin/sh
# Becomes the name server. Its configuration comes with the package, and control-dns changes it while it runs.
#
#   HOST_IP                   the address to answer on; without it, the configuration decides
set -eu

conf=/etc/contrail/dns/contrail-named.conf

if [ -n "${HOST_IP:-}" ] && [ -w "$conf" ]; then
    case $HOST_IP in
        *[!0-9.]*)
            echo "entrypoint: HOST_IP is not an IPv4 address: $HOST_IP" >&2
            exit 64
            ;;
    esac
    changed=$(sed "s|listen-on port 53 {.*};|listen-on port 53 { $HOST_IP; };|" "$conf")
    printf '%s\n' "$changed" >"$conf"
fi

exec "$@"
