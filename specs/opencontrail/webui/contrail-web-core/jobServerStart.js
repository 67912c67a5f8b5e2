/* The job server's place: a stand-in. */
'use strict';

const config = require('./config/config.global.js');

require('./stand-in.js').serve('webui-job', config.jobServer.server_port, config);
