// Where traces go that nobody reads: a collector of OpenTelemetry that takes all and keeps nothing.
import { once } from 'node:events';
import { createServer } from 'node:http';

const server = createServer((request, response) => {
  request.resume();
  request.once('end', () => response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end());
});
server.listen(Number(process.env.PORT), '127.0.0.1');
await once(server, 'listening');
process.send?.('ready');
await once(process, 'disconnect');
process.exit();
