/* The web server's place: a stand-in. */
'use strict';

const config = require('./config/config.global.js');

require('./stand-in.js').serve('webui-server', config.http_port, config);
