#!/bin/sh
# Writes the container's variables into cassandra's configuration, and becomes the server.
#
#   HOST_IP                   the address that other nodes and clients reach; without it, the container's own
#   CASSANDRA_CLUSTER_NAME    the cluster's name
#   CASSANDRA_SEEDS           the nodes to begin with, between commas; without it, this one
set -eu

conf=${CASSANDRA_CONFIG:-/etc/cassandra}/cassandra.yaml

# assign KEY VALUE: replaces a line of the file, or adds it.
assign() {
    changed=$(KEY=$1 VALUE=$2 awk '
        index($0, ENVIRON["KEY"] ":") == 1 { print ENVIRON["KEY"] ": " ENVIRON["VALUE"]; done = 1; next }
        { print }
        END { if (!done) print ENVIRON["KEY"] ": " ENVIRON["VALUE"] }
    ' "$conf")
    printf '%s\n' "$changed" >"$conf"
}

case ${1:-} in
    '' | -*) set -- cassandra -f "$@" ;;
esac

if [ "$1" = cassandra ]; then
    address=${HOST_IP:-$(hostname -i | cut -d ' ' -f 1)}
    assign listen_address "$address"
    assign broadcast_address "$address"
    assign rpc_address 0.0.0.0
    assign broadcast_rpc_address "$address"
    if [ -n "${CASSANDRA_CLUSTER_NAME:-}" ]; then
        assign cluster_name "'$CASSANDRA_CLUSTER_NAME'"
    fi
    changed=$(sed "s/- seeds: .*/- seeds: \"${CASSANDRA_SEEDS:-$address}\"/" "$conf")
    printf '%s\n' "$changed" >"$conf"
fi

exec "$@"
