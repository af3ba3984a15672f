// Node's own HTTP server with the page of uvicorn_plain.py. It says where it listens, and ends with its stdin.
'use strict';
const http = require('node:http');
const { serve } = require('./serving.js');

const BODY = 'Hello, world!';

serve(http.createServer((request, response) => {
  response.writeHead(200, { 'content-type': 'text/plain', 'content-length': Buffer.byteLength(BODY) });
  response.end(BODY);
}));
