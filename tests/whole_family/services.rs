//! The table of every image that has a process: how it is started, what becomes its first process, and how far it gets.

/// An image that has a process.
pub struct Service {
    pub image: &'static str,
    /// Variables besides the [`VARIABLES`] of all, or instead of them.
    pub variables: &'static [(&'static str, &'static str)],
    /// The name of the first process, as the kernel has it, and a part of its command line.
    pub process: (&'static str, &'static str),
    pub probes: &'static [Probe],
}

/// What shows that a service does its work, as far as it can alone.
pub enum Probe {
    /// It is a stand-in of this name, which answers at all these ports with its configuration.
    StandIn { name: &'static str, ports: &'static [u16], values: &'static [Value] },
    /// The page at this port and path says this.
    Page(u16, &'static str, &'static str),
    /// Over TCP, to this it answers that.
    Line(u16, &'static str, &'static str),
    /// Over UDP at port 53, and over TCP, it knows its own version, which contains this.
    Nameserver(&'static str),
    /// This command in the container prints that.
    Command(&'static [&'static str], &'static str),
    /// Its log says this: as far as it gets without a database, a broker or hardware.
    Log(&'static str),
}

/// A value in a configuration file: the path, the key with its section before a dot, and the value.
pub type Value = (&'static str, &'static str, &'static str);

/// All containers get these, as in the original, and take what they know.
pub const VARIABLES: &[(&str, &str)] = &[
    ("HOST_IP", "10.1.2.3"),
    ("KEYSTONE_SERVER", "10.1.2.10"),
    ("RABBIT_SERVER", "10.1.2.11"),
    ("CASSANDRA_SERVER", "10.1.2.12,10.1.2.13"),
    ("ZOOKEEPER_SERVER", "10.1.2.14"),
    ("DISCOVERY_SERVER", "10.1.2.15"),
    ("IFMAP_SERVER", "10.1.2.16"),
    ("REDIS_SERVER", "10.1.2.17"),
    ("COLLECTOR_SERVER", "10.1.2.18"),
    ("CONFIG_API_SERVER", "10.1.2.19"),
    ("ANALYTICS_API_SERVER", "10.1.2.20"),
    ("KAFKA_SERVER", "10.1.2.21"),
    ("CONTROL_SERVER", "10.1.2.22"),
    ("ADMIN_PASSWORD", "a password"),
];

/// What OpenStack's services are told besides.
const OPENSTACK: &[(&str, &str)] = &[
    ("MYSQL_SERVER", "10.1.2.30"),
    ("NEUTRON_SERVER", "10.1.2.31"),
    ("GLANCE_SERVER", "10.1.2.32"),
    ("NOVA_SERVER", "10.1.2.33"),
    ("MEMCACHED_SERVER", "10.1.2.34:11211"),
    ("SERVICE_PASSWORD", "service & more"),
];

/// What a service says that has read its configuration and now waits for the database that it found there.
const WAITS_FOR_DATABASE: Probe = Probe::Log("Can't connect to MySQL server on '10.1.2.30'");

/// Images that share layers follow each other: Docker has one group of them at a time.
pub const GROUPS: &[&[Service]] =
    &[DATABASES_AND_OTHERS, ANALYTICS, CONFIG, CONTROL, WEBUI, OPENSTACKBASE, NOVA, COMPUTE];

const DATABASES_AND_OTHERS: &[Service] = &[
    Service {
        image: "redis",
        variables: &[],
        process: ("redis-server", "redis-server *:6379"),
        probes: &[Probe::Line(6379, "PING\r\n", "+PONG"), Probe::Line(6379, "CONFIG GET dir\r\n", "/data")],
    },
    Service {
        image: "memcached",
        variables: &[],
        process: ("memcached", "memcached -u memcache"),
        probes: &[Probe::Line(11211, "version\r\n", "VERSION 1.6")],
    },
    Service {
        image: "rabbitmq",
        variables: &[("RABBITMQ_DEFAULT_USER", "somebody"), ("RABBITMQ_DEFAULT_PASS", "secret")],
        process: ("beam.smp", "rabbit"),
        probes: &[
            Probe::Command(&["rabbitmqctl", "status"], "RabbitMQ version: 3.10"),
            Probe::Command(&["rabbitmqctl", "authenticate_user", "somebody", "secret"], "Success"),
            // To anything else it answers with the protocol that it speaks.
            Probe::Line(5672, "hello hello\r\n", "AMQP"),
        ],
    },
    Service {
        image: "cassandra",
        variables: &[("CASSANDRA_CLUSTER_NAME", "Contrail")],
        process: ("cassandra", "/usr/sbin/cassandra -f"),
        probes: &[
            Probe::StandIn {
                name: "cassandra",
                ports: &[7000, 7001, 7199, 9042, 9160],
                values: &[
                    ("/etc/cassandra/cassandra.yaml", "listen_address", "10.1.2.3"),
                    ("/etc/cassandra/cassandra.yaml", "start_rpc", "true"),
                    ("/etc/cassandra/cassandra.yaml", "cluster_name", "'Contrail'"),
                ],
            },
            Probe::Command(&["grep", "seeds", "/etc/cassandra/cassandra.yaml"], "- seeds: \"10.1.2.3\""),
        ],
    },
    Service {
        image: "zookeeper",
        variables: &[("ADVERTISED_HOST", "10.1.2.3"), ("ADVERTISED_PORT", "9093"), ("ZK_CHROOT", "analytics")],
        process: ("supervisord", "/usr/bin/supervisord -n"),
        probes: &[
            Probe::Command(&["supervisorctl", "status", "zookeeper"], "RUNNING"),
            Probe::Command(&["supervisorctl", "status", "kafka"], "RUNNING"),
            Probe::Line(2181, "srvr", "Mode: standalone"),
            Probe::Line(2181, "ruok", "imok"),
            Probe::StandIn {
                name: "kafka",
                ports: &[9092],
                values: &[
                    ("/opt/kafka_2.11-0.8.2.1/config/server.properties", "advertised.host.name", "10.1.2.3"),
                    ("/opt/kafka_2.11-0.8.2.1/config/server.properties", "advertised.port", "9093"),
                    (
                        "/opt/kafka_2.11-0.8.2.1/config/server.properties",
                        "zookeeper.connect",
                        "localhost:2181/analytics",
                    ),
                ],
            },
            Probe::Command(&["ls", "/var/lib/zookeeper"], "version-2"),
        ],
    },
    Service {
        image: "ifmap",
        variables: &[],
        process: ("python3", "/usr/share/ifmap-server/ifmap-server.py"),
        probes: &[Probe::StandIn {
            name: "ifmap-server",
            ports: &[8443, 8444],
            values: &[
                ("/etc/ifmap-server/basicauthusers.properties", "10.1.2.22", "(set)"),
                ("/etc/ifmap-server/basicauthusers.properties", "10.1.2.22.dns", "(set)"),
            ],
        }],
    },
    Service {
        image: "vrouter-agent",
        variables: &[("METADATA_SECRET", "secret")],
        process: ("contrail-vroute", "/usr/bin/contrail-vrouter-agent"),
        probes: &[Probe::StandIn {
            name: "contrail-vrouter-agent",
            ports: &[8085, 9090],
            values: &[
                ("/etc/contrail/contrail-vrouter-agent.conf", "NETWORKS.control_network_ip", "10.1.2.3"),
                ("/etc/contrail/contrail-vrouter-agent.conf", "DISCOVERY.server", "10.1.2.15"),
                ("/etc/contrail/contrail-vrouter-agent.conf", "CONTROL-NODE.server", "10.1.2.22"),
                ("/etc/contrail/contrail-vrouter-agent.conf", "METADATA.metadata_proxy_secret", "(set)"),
            ],
        }],
    },
];

const ANALYTICS: &[Service] = &[
    Service {
        image: "analytics-api",
        variables: &[],
        process: ("python3", "/usr/bin/contrail-analytics-api -c /etc/contrail/contrail-analytics-api.conf"),
        probes: &[Probe::StandIn {
            name: "contrail-analytics-api",
            ports: &[8081, 8090],
            values: &[
                ("/etc/contrail/contrail-analytics-api.conf", "DEFAULTS.host_ip", "10.1.2.3"),
                (
                    "/etc/contrail/contrail-analytics-api.conf",
                    "DEFAULTS.cassandra_server_list",
                    "10.1.2.12:9042 10.1.2.13:9042",
                ),
                ("/etc/contrail/contrail-analytics-api.conf", "DISCOVERY.disc_server_ip", "10.1.2.15"),
                ("/etc/contrail/contrail-analytics-api.conf", "REDIS.server", "10.1.2.17"),
            ],
        }],
    },
    Service {
        image: "analytics-alarm",
        variables: &[],
        process: ("python3", "/usr/bin/contrail-alarm-gen -c /etc/contrail/contrail-alarm-gen.conf"),
        probes: &[Probe::StandIn {
            name: "contrail-alarm-gen",
            ports: &[5995],
            values: &[
                ("/etc/contrail/contrail-alarm-gen.conf", "DEFAULTS.host_ip", "10.1.2.3"),
                ("/etc/contrail/contrail-alarm-gen.conf", "DEFAULTS.kafka_broker_list", "10.1.2.21:9092"),
                ("/etc/contrail/contrail-alarm-gen.conf", "DEFAULTS.zk_list", "10.1.2.14:2181"),
            ],
        }],
    },
    Service {
        image: "analytics-snmp",
        variables: &[],
        process: ("python3", "/usr/bin/contrail-snmp-collector --device-config-file /etc/contrail/device.ini"),
        probes: &[Probe::StandIn {
            name: "contrail-snmp-collector",
            ports: &[5920],
            values: &[
                ("/etc/contrail/contrail-snmp-collector.conf", "DEFAULTS.collectors", "10.1.2.18:8086"),
                ("/etc/contrail/contrail-snmp-collector.conf", "DEFAULTS.zookeeper", "10.1.2.14:2181"),
                ("/etc/contrail/contrail-snmp-collector.conf", "DISCOVERY.disc_server_ip", "10.1.2.15"),
            ],
        }],
    },
    Service {
        image: "analytics-query",
        variables: &[],
        process: ("contrail-query-", "/usr/bin/contrail-query-engine"),
        probes: &[Probe::StandIn {
            name: "contrail-query-engine",
            ports: &[8091],
            values: &[
                ("/etc/contrail/contrail-query-engine.conf", "DEFAULT.hostip", "10.1.2.3"),
                (
                    "/etc/contrail/contrail-query-engine.conf",
                    "DEFAULT.cassandra_server_list",
                    "10.1.2.12:9042 10.1.2.13:9042",
                ),
                ("/etc/contrail/contrail-query-engine.conf", "REDIS.server", "10.1.2.17"),
            ],
        }],
    },
    Service {
        image: "analytics-collector",
        variables: &[],
        process: ("contrail-collec", "/usr/bin/contrail-collector"),
        probes: &[Probe::StandIn {
            name: "contrail-collector",
            ports: &[8086, 8089],
            values: &[
                ("/etc/contrail/contrail-collector.conf", "DEFAULT.hostip", "10.1.2.3"),
                ("/etc/contrail/contrail-collector.conf", "DEFAULT.zookeeper_server_list", "10.1.2.14:2181"),
                ("/etc/contrail/contrail-collector.conf", "DISCOVERY.server", "10.1.2.15"),
            ],
        }],
    },
    Service {
        image: "analytics-topology",
        variables: &[],
        process: ("python3", "/usr/bin/contrail-topology"),
        probes: &[Probe::StandIn {
            name: "contrail-topology",
            ports: &[5921],
            values: &[
                ("/etc/contrail/contrail-topology.conf", "DEFAULTS.analytics_api", "10.1.2.20:8081"),
                ("/etc/contrail/contrail-topology.conf", "DEFAULTS.zookeeper", "10.1.2.14:2181"),
            ],
        }],
    },
];

const CONFIG: &[Service] = &[
    Service {
        image: "config-api",
        variables: &[("MEMCACHED_SERVER", "10.1.2.34:11211")],
        process: ("python3", "/usr/bin/contrail-api --conf_file /etc/contrail/contrail-api.conf"),
        probes: &[Probe::StandIn {
            name: "contrail-api",
            ports: &[8082, 8084],
            values: &[
                ("/etc/contrail/contrail-api.conf", "DEFAULTS.host_ip", "10.1.2.3"),
                ("/etc/contrail/contrail-api.conf", "DEFAULTS.ifmap_server_ip", "10.1.2.16"),
                ("/etc/contrail/contrail-api.conf", "DEFAULTS.cassandra_server_list", "10.1.2.12:9160 10.1.2.13:9160"),
                ("/etc/contrail/contrail-api.conf", "DEFAULTS.zk_server_ip", "10.1.2.14:2181"),
                ("/etc/contrail/contrail-api.conf", "DEFAULTS.rabbit_server", "10.1.2.11"),
                ("/etc/contrail/contrail-keystone-auth.conf", "KEYSTONE.auth_host", "10.1.2.10"),
                ("/etc/contrail/contrail-keystone-auth.conf", "KEYSTONE.admin_password", "(set)"),
                ("/etc/contrail/contrail-keystone-auth.conf", "KEYSTONE.memcache_servers", "10.1.2.34:11211"),
            ],
        }],
    },
    Service {
        image: "config-svc-monitor",
        variables: &[],
        process: ("python3", "/usr/bin/contrail-svc-monitor --conf_file /etc/contrail/contrail-svc-monitor.conf"),
        probes: &[Probe::StandIn {
            name: "contrail-svc-monitor",
            ports: &[8088],
            values: &[
                ("/etc/contrail/contrail-svc-monitor.conf", "DEFAULTS.api_server_ip", "10.1.2.19"),
                ("/etc/contrail/contrail-svc-monitor.conf", "SCHEDULER.analytics_server_list", "10.1.2.20:8081"),
                ("/etc/contrail/contrail-keystone-auth.conf", "KEYSTONE.auth_host", "10.1.2.10"),
            ],
        }],
    },
    Service {
        image: "config-schema",
        variables: &[],
        process: ("python3", "/usr/bin/contrail-schema --conf_file /etc/contrail/contrail-schema.conf"),
        probes: &[Probe::StandIn {
            name: "contrail-schema",
            ports: &[8087],
            values: &[
                ("/etc/contrail/contrail-schema.conf", "DEFAULTS.zk_server_ip", "10.1.2.14:2181"),
                ("/etc/contrail/contrail-schema.conf", "DEFAULTS.rabbit_server", "10.1.2.11"),
                ("/etc/contrail/contrail-keystone-auth.conf", "KEYSTONE.auth_host", "10.1.2.10"),
            ],
        }],
    },
    Service {
        image: "config-discovery",
        variables: &[],
        process: ("python3", "/usr/bin/contrail-discovery --conf_file /etc/contrail/contrail-discovery.conf"),
        probes: &[Probe::StandIn {
            name: "contrail-discovery",
            ports: &[5997, 5998],
            values: &[
                (
                    "/etc/contrail/contrail-discovery.conf",
                    "DEFAULTS.cassandra_server_list",
                    "10.1.2.12:9160 10.1.2.13:9160",
                ),
                ("/etc/contrail/contrail-discovery.conf", "DEFAULTS.zk_server_ip", "10.1.2.14"),
            ],
        }],
    },
    Service {
        image: "config-device-manager",
        variables: &[],
        process: ("python3", "/usr/bin/contrail-device-manager --conf_file /etc/contrail/contrail-device-manager.conf"),
        probes: &[Probe::StandIn {
            name: "contrail-device-manager",
            ports: &[8096],
            values: &[
                ("/etc/contrail/contrail-device-manager.conf", "DEFAULTS.api_server_ip", "10.1.2.19"),
                ("/etc/contrail/contrail-device-manager.conf", "DEFAULTS.disc_server_ip", "10.1.2.15"),
                ("/etc/contrail/contrail-keystone-auth.conf", "KEYSTONE.auth_host", "10.1.2.10"),
            ],
        }],
    },
];

const CONTROL: &[Service] = &[
    Service {
        image: "control-control",
        variables: &[],
        process: ("contrail-contro", "/usr/bin/contrail-control"),
        probes: &[Probe::StandIn {
            name: "contrail-control",
            ports: &[179, 5269, 8083],
            values: &[
                ("/etc/contrail/contrail-control.conf", "DEFAULT.hostip", "10.1.2.3"),
                ("/etc/contrail/contrail-control.conf", "DISCOVERY.server", "10.1.2.15"),
                ("/etc/contrail/contrail-control.conf", "IFMAP.server_url", "https://10.1.2.16:8443"),
            ],
        }],
    },
    Service {
        image: "control-dns",
        variables: &[],
        process: ("contrail-dns", "/usr/bin/contrail-dns"),
        probes: &[Probe::StandIn {
            name: "contrail-dns",
            ports: &[8092, 8093],
            values: &[
                ("/etc/contrail/contrail-dns.conf", "DEFAULT.hostip", "10.1.2.3"),
                ("/etc/contrail/contrail-dns.conf", "IFMAP.user", "10.1.2.3.dns"),
            ],
        }],
    },
    Service {
        image: "control-named",
        // It listens there, and a container without a network has no other address.
        variables: &[("HOST_IP", "127.0.0.1")],
        process: ("named", "/usr/sbin/named -u contrail -f -c /etc/contrail/dns/contrail-named.conf"),
        probes: &[
            Probe::Nameserver("contrail-named 3.0-2668 (stand-in)"),
            Probe::Command(&["grep", "listen-on", "/etc/contrail/dns/contrail-named.conf"], "{ 127.0.0.1; }"),
            Probe::Command(&["contrail-rndc", "status"], "server is up and running"),
        ],
    },
];

const WEBUI: &[Service] = &[
    Service {
        image: "webui-job",
        variables: &[],
        process: ("nodejs", "/usr/bin/nodejs jobServerStart.js"),
        probes: &[Probe::StandIn {
            name: "contrail-webui-job",
            ports: &[3000],
            values: &[
                ("/etc/contrail/config.global.js", "identityManager.ip", "10.1.2.10"),
                ("/etc/contrail/config.global.js", "cnfg.server_ip", "10.1.2.19"),
                ("/etc/contrail/config.global.js", "redis_server_ip", "10.1.2.17"),
            ],
        }],
    },
    Service {
        image: "webui-server",
        variables: &[],
        process: ("nodejs", "/usr/bin/nodejs webServerStart.js"),
        probes: &[Probe::StandIn {
            name: "contrail-webui-server",
            ports: &[8080, 8143],
            values: &[
                ("/etc/contrail/config.global.js", "discoveryService.server_ip", "10.1.2.15"),
                ("/etc/contrail/config.global.js", "analytics.server_ip", "10.1.2.20"),
            ],
        }],
    },
];

const OPENSTACKBASE: &[Service] = &[
    Service {
        image: "keystone",
        // A database of its own.
        variables: &[],
        process: ("uwsgi_python311", "--ini /etc/keystone/keystone-uwsgi.ini --http-socket :5000"),
        probes: &[
            Probe::Page(5000, "v3", "\"id\": \"v3.14\""),
            Probe::Page(5000, "v3", "http://10.1.2.10:5000/v3/"),
            Probe::Log("Created admin endpoint http://10.1.2.10:5000/v3/"),
        ],
    },
    Service {
        image: "libvirt",
        variables: &[],
        process: ("libvirtd", "/usr/sbin/libvirtd -l"),
        probes: &[
            // Over its socket, and over TCP as other hosts do it; by the driver that needs no machine. The one for QEMU
            // waits for emulators to vanish that it has ended, which as the first process it would have to bury itself.
            Probe::Command(
                &["virsh", "-c", "test+unix:///default", "version", "--daemon"],
                "Running against daemon: 9.0",
            ),
            Probe::Command(&["virsh", "-c", "test+tcp://127.0.0.1/default", "version"], "Using library: libvirt 9.0"),
            Probe::Command(&["qemu-system-x86_64", "--version"], "QEMU emulator version 7.2"),
        ],
    },
    Service {
        image: "neutron-server",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/neutron-server"),
        probes: &[
            Probe::Log("/usr/bin/neutron-server version 21."),
            Probe::Log("Loading core plugin: ml2"),
            WAITS_FOR_DATABASE,
            Probe::Command(
                &["/openstack-config", "--get", "/etc/neutron/neutron.conf", "keystone_authtoken", "auth_url"],
                "http://10.1.2.10:5000",
            ),
            Probe::Command(
                &[
                    "/openstack-config",
                    "--get",
                    "/etc/neutron/plugins/opencontrail/ContrailPlugin.ini",
                    "APISERVER",
                    "api_server_ip",
                ],
                "10.1.2.19",
            ),
        ],
    },
    Service {
        image: "glance-registry",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/glance-registry"),
        probes: &[Probe::StandIn {
            name: "glance-registry",
            ports: &[9191],
            values: &[
                (
                    "/etc/glance/glance-registry.conf",
                    "database.connection",
                    "mysql+pymysql://glance:(set)@10.1.2.30/glance",
                ),
                ("/etc/glance/glance-registry.conf", "keystone_authtoken.auth_url", "http://10.1.2.10:5000"),
                ("/etc/glance/glance-registry.conf", "DEFAULT.transport_url", "rabbit://guest:(set)@10.1.2.11:5672/"),
            ],
        }],
    },
    Service {
        image: "glance-api",
        // It answers without a database.
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/glance-api"),
        probes: &[
            Probe::Page(9292, "", "\"id\": \"v2.15\", \"status\": \"CURRENT\""),
            Probe::Command(
                &["/openstack-config", "--get", "/etc/glance/glance-api.conf", "database", "connection"],
                "mysql+pymysql://glance:service%20%26%20more@10.1.2.30/glance",
            ),
        ],
    },
    Service {
        image: "cinder-api",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/cinder-api"),
        probes: &[
            WAITS_FOR_DATABASE,
            Probe::Command(&["/openstack-config", "--get", "/etc/cinder/cinder.conf", "DEFAULT", "my_ip"], "10.1.2.3"),
        ],
    },
    Service {
        image: "cinder-scheduler",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/cinder-scheduler"),
        probes: &[
            WAITS_FOR_DATABASE,
            Probe::Command(
                &["/openstack-config", "--get", "/etc/cinder/cinder.conf", "DEFAULT", "transport_url"],
                "rabbit://guest:guest@10.1.2.11:5672/",
            ),
        ],
    },
];

const NOVA: &[Service] = &[
    Service {
        image: "nova-api",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/nova-api"),
        probes: &[
            Probe::Log("osapi_compute listening on 0.0.0.0:8774"),
            Probe::Log("metadata listening on 0.0.0.0:8775"),
            WAITS_FOR_DATABASE,
            Probe::Command(&["/openstack-config", "--get", "/etc/nova/nova.conf", "DEFAULT", "my_ip"], "10.1.2.3"),
            Probe::Command(
                &["/openstack-config", "--get", "/etc/nova/nova.conf", "neutron", "endpoint_override"],
                "http://10.1.2.31:9696",
            ),
        ],
    },
    Service {
        image: "nova-cert",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/nova-cert"),
        probes: &[
            Probe::Log("nova-cert: stand-in 2:12.0.0-0fixture1 runs; it has no port"),
            Probe::Command(
                &["/openstack-config", "--get", "/etc/nova/nova.conf", "DEFAULT", "transport_url"],
                "rabbit://guest:guest@10.1.2.11:5672/",
            ),
        ],
    },
    Service {
        image: "nova-consoleauth",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/nova-consoleauth"),
        probes: &[Probe::Log("nova-consoleauth: stand-in 2:18.0.0-0fixture1 runs; it has no port")],
    },
    Service {
        image: "nova-conductor",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/nova-conductor"),
        probes: &[
            WAITS_FOR_DATABASE,
            Probe::Command(
                &["/openstack-config", "--get", "/etc/nova/nova.conf", "api_database", "connection"],
                "mysql+pymysql://nova:service%20%26%20more@10.1.2.30/nova_api",
            ),
            Probe::Command(
                &["/openstack-config", "--get", "/etc/nova/nova.conf", "placement", "auth_url"],
                "http://10.1.2.10:5000",
            ),
        ],
    },
    Service {
        image: "nova-scheduler",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/nova-scheduler"),
        probes: &[WAITS_FOR_DATABASE],
    },
    Service {
        image: "nova-novncproxy",
        variables: OPENSTACK,
        process: ("python3", "/usr/bin/nova-novncproxy"),
        probes: &[Probe::Page(6080, "vnc_lite.html", "noVNC")],
    },
];

const COMPUTE: &[Service] = &[Service {
    image: "nova-compute",
    variables: OPENSTACK,
    process: ("python3", "--config-file=/etc/nova/nova.conf --config-file=/etc/nova/nova-compute.conf"),
    probes: &[
        Probe::Log("Loaded VIF plugins"),
        // It needs no database, but a broker.
        Probe::Log("oslo.messaging._drivers.impl_rabbit"),
        Probe::Log("Connection failed: "),
        Probe::Command(
            &["/openstack-config", "--get", "/etc/nova/nova.conf", "glance", "api_servers"],
            "http://10.1.2.32:9292",
        ),
    ],
}];
