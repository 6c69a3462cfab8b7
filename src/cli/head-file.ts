// A file of kept chain heads: JSON lines, each the answer of GET /v1/accounts/{id}/chain-head.
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { type ChainHead, chainHead, HEADS_PAGE_MAX } from '../shared/chain-head.ts';
import { SettingsError } from '../shared/config.ts';

/** In pages of at most HEADS_PAGE_MAX, so that a file of any size needs little memory. @throws SettingsError naming the line. */
export async function* readHeadFile(path: string): AsyncGenerator<ChainHead[]> {
  let page: ChainHead[] = [];
  let number = 0;
  for await (const line of openLines(path)) {
    number += 1;
    if (line.trim() === '') continue;
    page.push(parseHead(line, `${path} line ${number}`));
    if (page.length === HEADS_PAGE_MAX) {
      yield page;
      page = [];
    }
  }
  yield page;
}

async function* openLines(path: string): AsyncGenerator<string> {
  try {
    yield* createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY });
  } catch (cause) {
    throw new SettingsError(`the file of heads cannot be read: ${(cause as Error).message}`, { cause });
  }
}

function parseHead(line: string, where: string): ChainHead {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    throw new SettingsError(
      `${where} is not JSON: each line has to be a head such as {"accountId":"alice","version":1,"hash":"…"}`,
    );
  }
  const head = chainHead.safeParse(json);
  if (head.success) return head.data;
  const wrong = head.error.issues
    .map((issue) => [issue.path.join('.'), issue.message].filter(Boolean).join(' '))
    .join('; ');
  throw new SettingsError(`${where} is not a head: ${wrong}`);
}
