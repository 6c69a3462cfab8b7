// An OpenTelemetry collector in the test process: takes spans by OTLP over HTTP and decodes the
// protobuf of them.
// https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onCleanUp } from './harness.ts';

export interface CollectedSpan {
  service: string;
  name: string;
  traceId: string;
  spanId: string;
  /** Empty at the root. */
  parentId: string;
  /** Span ids. */
  links: string[];
  attributes: Record<string, string | number>;
}

export async function startCollector() {
  const spans: CollectedSpan[] = [];
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    if (request.headers['content-type'] === 'application/x-protobuf') spans.push(...decode(Buffer.concat(chunks)));
    response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onCleanUp(async () => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, spans };
}

type Fields = Map<number, (Buffer | bigint)[]>;

function decode(body: Buffer): CollectedSpan[] {
  return messages(fieldsOf(body), 1).flatMap((resourceSpans) => {
    const service = attributesOf(messages(resourceSpans, 1)[0] ?? new Map(), 1)['service.name'];
    return messages(resourceSpans, 2)
      .flatMap((scope) => messages(scope, 2))
      .map((span) => ({
        service: String(service),
        name: bytes(span, 5).toString(),
        traceId: bytes(span, 1).toString('hex'),
        spanId: bytes(span, 2).toString('hex'),
        parentId: bytes(span, 4).toString('hex'),
        links: messages(span, 13).map((link) => bytes(link, 2).toString('hex')),
        attributes: attributesOf(span, 9),
      }));
  });
}

function attributesOf(message: Fields, field: number): Record<string, string | number> {
  return Object.fromEntries(
    messages(message, field).map((pair) => {
      const value = messages(pair, 2)[0] ?? new Map();
      const whole = value.get(3)?.[0];
      return [bytes(pair, 1).toString(), whole === undefined ? bytes(value, 1).toString() : Number(whole)];
    }),
  );
}

const bytes = (message: Fields, field: number) => (message.get(field)?.[0] as Buffer | undefined) ?? Buffer.alloc(0);
const messages = (message: Fields, field: number) =>
  (message.get(field) ?? []).map((value) => fieldsOf(value as Buffer));

/** https://protobuf.dev/programming-guides/encoding/ */
function fieldsOf(buffer: Buffer): Fields {
  const fields: Fields = new Map();
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = buffer.readUInt8(at++);
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  const block = (length: number) => {
    at += length;
    return buffer.subarray(at - length, at);
  };
  while (at < buffer.length) {
    const tag = Number(varint());
    const wireType = tag & 7;
    const value = wireType === 0 ? varint() : block(wireType === 2 ? Number(varint()) : wireType === 1 ? 8 : 4);
    fields.set(tag >> 3, [...(fields.get(tag >> 3) ?? []), value]);
  }
  return fields;
}
