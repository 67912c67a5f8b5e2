#!/bin/sh
# dpkg and apt as judges of a system: judge.sh MORE GONE. MORE is a package to install, and GONE one to purge.
more=$1 gone=$2

content() {
    said=$(dpkg --audit; dpkg --verify)
    [ -z "$said" ] || { echo "$1, dpkg says: $said"; exit 1; }
    apt-get -qq check
}

content 'as it is built'
apt-get -qq update
# Nothing is upgraded, taken away or set up besides what is asked for.
apt-get -qq -y --no-install-recommends --no-remove install "$more" </dev/null
[ "$(dpkg-query -W -f '${Status}' "$more")" = 'install ok installed' ]
content "with $more"
dpkg --purge "$gone" </dev/null
# dpkg remembers a package that others speak of.
state=$(dpkg-query -W -f '${db:Status-Status}' "$gone" || echo not-installed)
[ "$state" = not-installed ]
content "without $gone"
