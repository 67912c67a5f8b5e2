#!/bin/sh
# Starts RabbitMQ as the user rabbitmq.
#
#   RABBITMQ_ERLANG_COOKIE   the secret that nodes and rabbitmqctl share; without it, one is made at the first start
#   RABBITMQ_NODENAME        the node's name; without it, rabbit@ the host's name, or rabbit@localhost if that name
#                            leads nowhere
#   RABBITMQ_DEFAULT_USER, RABBITMQ_DEFAULT_PASS, RABBITMQ_DEFAULT_VHOST
#                            who may log in at first; without them, guest
set -eu

home=/var/lib/rabbitmq
cookie=$home/.erlang.cookie
settings=/etc/rabbitmq/conf.d/20-environment.conf

# Images hold no secret, so the first start makes one.
prepare_cookie() {
    if [ -n "${RABBITMQ_ERLANG_COOKIE:-}" ]; then
        secret=$RABBITMQ_ERLANG_COOKIE
    elif [ -s "$cookie" ]; then
        return 0
    else
        secret=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    fi
    (umask 077 && printf '%s' "$secret" >"$cookie.new")
    chmod 0400 "$cookie.new"
    mv -f "$cookie.new" "$cookie"
    unset RABBITMQ_ERLANG_COOKIE
}

# In the file, and not in the environment, rabbitmqctl finds the name too.
prepare_name() {
    name=${RABBITMQ_NODENAME:-}
    if [ -z "$name" ] && ! getent hosts "$(hostname -s)" >/dev/null; then
        name=rabbit@localhost
    fi
    if [ -n "$name" ]; then
        sed -i '/^NODENAME=/d' /etc/rabbitmq/rabbitmq-env.conf
        printf 'NODENAME=%s\n' "$name" >>/etc/rabbitmq/rabbitmq-env.conf
    fi
}

setting() {
    if [ -n "$2" ]; then
        printf '%s = %s\n' "$1" "$2"
    fi
}

prepare_settings() {
    (
        umask 077
        {
            setting default_user "${RABBITMQ_DEFAULT_USER:-}"
            setting default_pass "${RABBITMQ_DEFAULT_PASS:-}"
            setting default_vhost "${RABBITMQ_DEFAULT_VHOST:-}"
        } >"$settings"
    )
    unset RABBITMQ_DEFAULT_USER RABBITMQ_DEFAULT_PASS RABBITMQ_DEFAULT_VHOST
}

case "${1:-}" in
    '' | -*) set -- rabbitmq-server "$@" ;;
esac

if [ "$1" = rabbitmq-server ]; then
    # The server's own script would stay between us and Erlang to pass signals on. Erlang handles them itself; told
    # that someone else watches over it, the script makes way.
    export RUNNING_UNDER_SYSTEMD=true
    if [ "$(id -u)" = 0 ]; then
        prepare_cookie
        prepare_name
        prepare_settings
        chown rabbitmq:rabbitmq "$settings"
        find "$home" ! -user rabbitmq -exec chown rabbitmq:rabbitmq {} +
        exec gosu rabbitmq "$@"
    fi
fi

exec "$@"
