#!/bin/sh
# Starts memcached. Arguments alone are meant for it.
set -eu

case "${1:-}" in
    '' | -*) set -- memcached "$@" ;;
esac

exec "$@"
