// What the servers in JavaScript share: the line that says where they listen, and the end when stdin ends.
'use strict';

const BACKLOG = 4096; // connections; the kernel cuts it to net.core.somaxconn

exports.serve = (server) => {
  server.listen({ port: 0, host: '127.0.0.1', backlog: BACKLOG }, () => {
    const ready = { port: server.address().port, pid: process.pid, loop: 'node', version: process.versions.node };
    console.log(JSON.stringify(ready));
  });
  process.stdin.on('end', () => process.exit(0));
  process.stdin.resume();
};
