/*
 * The configuration that both processes of the web interface read. The entry point changes the addresses in it, a line
 * each: keep every assignment on a line of its own.
 */
var config = {};

config.orchestration = {};
config.orchestration.Manager = 'openstack';

config.networkManager = {};
config.networkManager.ip = '127.0.0.1';
config.networkManager.port = '9696';

config.imageManager = {};
config.imageManager.ip = '127.0.0.1';
config.imageManager.port = '9292';

config.computeManager = {};
config.computeManager.ip = '127.0.0.1';
config.computeManager.port = '8774';

config.storageManager = {};
config.storageManager.ip = '127.0.0.1';
config.storageManager.port = '8776';

config.identityManager = {};
config.identityManager.ip = '127.0.0.1';
config.identityManager.port = '5000';

config.cnfg = {};
config.cnfg.server_ip = '127.0.0.1';
config.cnfg.server_port = '8082';

config.analytics = {};
config.analytics.server_ip = '127.0.0.1';
config.analytics.server_port = '8081';

config.discoveryService = {};
config.discoveryService.server_ip = '127.0.0.1';
config.discoveryService.server_port = '5998';

config.cassandra = {};
config.cassandra.server_ips = ['127.0.0.1'];
config.cassandra.server_port = '9160';

config.jobServer = {};
config.jobServer.server_ip = '127.0.0.1';
config.jobServer.server_port = '3000';

config.redis_server_ip = '127.0.0.1';
config.redis_server_port = '6379';

config.http_port = '8080';

module.exports = config;
