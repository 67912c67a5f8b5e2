/*
 * A stand-in for a process of contrail-web-core: an HTTP server that says who it is and which configuration it read.
 * It is not the vendor's software, and says so in every answer.
 */
'use strict';

const http = require('http');

const VERSION = '3.0-2668';

function answer(name, config) {
    return JSON.stringify(
        {
            name: name,
            version: VERSION,
            stand_in: true,
            note: 'this stands in for contrail-web-core, which is not part of this image',
            config: config,
        },
        null,
        2
    );
}

/* Listens on `port` until the container is stopped. */
exports.serve = function (name, port, config) {
    const body = answer(name, config) + '\n';
    const server = http.createServer(function (request, response) {
        response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
        response.end(request.method === 'HEAD' ? undefined : body);
    });
    server.on('error', function (error) {
        console.error(name + ': ' + error.message);
        process.exit(1);
    });
    server.listen(Number(port), function () {
        console.log(name + ' ' + VERSION + ' (stand-in) listens on port ' + port);
    });
    /* The first process of a container ignores signals that it does not handle. */
    ['SIGTERM', 'SIGINT'].forEach(function (signal) {
        process.on(signal, function () {
            process.exit(0);
        });
    });
};
