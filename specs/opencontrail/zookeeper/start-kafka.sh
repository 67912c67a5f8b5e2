#!/bin/sh
# Writes the container's variables into kafka's configuration, and becomes the broker.
#
#   ADVERTISED_HOST           the address that clients are told
#   ADVERTISED_PORT           the port that they are told
#   ZK_CHROOT                 the directory in ZooKeeper
set -eu

conf=$KAFKA_HOME/config/server.properties

# assign KEY VALUE: replaces a line of the file, commented or not, or adds it.
assign() {
    changed=$(KEY=$1 VALUE=$2 awk '
        { line = $0; sub(/^#/, "", line) }
        index(line, ENVIRON["KEY"] "=") == 1 { if (!done) print ENVIRON["KEY"] "=" ENVIRON["VALUE"]; done = 1; next }
        { print }
        END { if (!done) print ENVIRON["KEY"] "=" ENVIRON["VALUE"] }
    ' "$conf")
    printf '%s\n' "$changed" >"$conf"
}

if [ -n "${ADVERTISED_HOST:-}" ]; then
    assign advertised.host.name "$ADVERTISED_HOST"
fi
if [ -n "${ADVERTISED_PORT:-}" ]; then
    assign advertised.port "$ADVERTISED_PORT"
fi
if [ -n "${ZK_CHROOT:-}" ]; then
    assign zookeeper.connect "localhost:2181/$ZK_CHROOT"
fi

exec "$KAFKA_HOME/bin/kafka-server-start.sh" "$conf"
