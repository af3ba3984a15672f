// Echo with Node's net module, as protocol_echo.py. It says where it listens, and ends with its stdin.
'use strict';
const net = require('node:net');
const { serve } = require('./serving.js');

serve(net.createServer({ noDelay: true }, (socket) => {
  socket.on('data', (data) => socket.write(data));
  socket.on('error', () => socket.destroy()); // a client that is reset ends only its own connection
}));
