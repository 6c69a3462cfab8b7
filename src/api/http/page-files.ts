// The files of the pages that the service shows. All of them come from this process, so that a page
// works without internet.
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type { RequestHandler, Response } from 'express';

export interface PageFile {
  type: string;
  from: () => URL | string;
}

/** Sends a file, which is read when first asked for, and kept. */
export function pageFile({ type, from }: PageFile): (response: Response) => Promise<void> {
  let content: Promise<Buffer> | undefined;
  return async (response) => {
    content ??= readFile(fileURLToPath(from())).catch((error: unknown) => {
      content = undefined; // a failure is not kept
      throw error;
    });
    const body = await content;
    sendPage(response, type, body);
  };
}

/** Answers with the one that `:file` names. */
export function pageFiles(files: Readonly<Record<string, PageFile>>): RequestHandler {
  const senders = new Map(Object.entries(files).map(([name, file]) => [name, pageFile(file)]));
  return (request, response, next) => {
    const send = senders.get(String(request.params.file));
    return send ? send(response) : next('route');
  };
}

export function sendPage(response: Response, type: string, body: string | Buffer): void {
  response.setHeader('content-type', type);
  response.setHeader('content-length', Buffer.byteLength(body));
  // Its opener cannot access its window.
  response.setHeader('cross-origin-opener-policy', 'same-origin');
  response.end(body);
}
