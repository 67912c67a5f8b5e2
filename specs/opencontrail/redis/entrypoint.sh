#!/bin/sh
# Starts redis as the user redis, with its data in /data.
set -eu

# Arguments alone, or a configuration file, are meant for the server.
case "${1:-}" in
    '' | -* | *.conf) set -- redis-server "$@" ;;
esac

if [ "$1" = redis-server ]; then
    shift
    # Without a configuration file redis refuses everyone but the loopback interface; who may reach a container's
    # ports is decided outside of it.
    case "${1:-}" in
        '' | -*) set -- --protected-mode no "$@" ;;
    esac
    set -- redis-server "$@"
    if [ "$(id -u)" = 0 ]; then
        # A volume arrives with whatever owner it has on the host.
        find . ! -user redis -exec chown redis:redis {} +
        exec gosu redis "$@"
    fi
fi

exec "$@"
