FROM ubuntu:14.04
ENV BUILD_HOST_FILE=/tmp/build-host APT_PROXY_CONF=/etc/apt/apt.conf.d/30proxy
COPY netstat nc /usr/local/bin/
RUN echo "deb http://10.87.64.23/contrail-3.0-2668/ amd64/" > /etc/apt/sources.list
ONBUILD RUN netstat -nr | grep '^0\.0\.0\.0' | awk '{print $2}' > ${BUILD_HOST_FILE}
ONBUILD RUN echo "HEAD /" | nc -q -1 -n -v  `cat ${BUILD_HOST_FILE}` 3128 | grep squid-deb-proxy \
  && (echo "Acquire::http::Proxy \"http://$(cat ${BUILD_HOST_FILE}):3128\";" > ${APT_PROXY_CONF}) \
  && (echo "Acquire::http::Proxy::ppa.example DIRECT;" >> ${APT_PROXY_CONF}) \
  || echo "No squid-deb-proxy detected on docker host"
