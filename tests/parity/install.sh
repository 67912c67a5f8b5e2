#!/bin/sh
# What apt makes of packages: install.sh PACKAGE...
umask 022
apt-get -qq update
apt-get -qq -y --no-install-recommends install "$@" </dev/null
