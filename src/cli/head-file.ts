// A file of kept chain heads: JSON lines, each the answer of GET /v1/accounts/{id}/chain-head.
import { chainHead } from '../shared/chain-head.ts';
import { SettingsError } from '../shared/config.ts';
import type { ChainHead } from '../shared/contract.ts';
import { KEPT_HEADS_PAGE_MAX } from '../shared/kept-heads.ts';
import { findings } from '../shared/zod.ts';
import { inPages, type Line, readLines } from './lines.ts';

/** In pages of at most KEPT_HEADS_PAGE_MAX. @throws SettingsError naming the line. */
export function readHeadFile(path: string): AsyncGenerator<ChainHead[]> {
  return inPages(readHeads(path), KEPT_HEADS_PAGE_MAX);
}

/** The same, of a file that has to have the order of {@link listChainHeads}, and each account once. */
export function readOrderedHeadFile(path: string): AsyncGenerator<ChainHead[]> {
  return inPages(inOrder(path), KEPT_HEADS_PAGE_MAX);
}

async function* readHeads(path: string): AsyncGenerator<ChainHead> {
  for await (const line of readLines(path)) yield parseHead(line);
}

async function* inOrder(path: string): AsyncGenerator<ChainHead> {
  let before = '';
  for await (const line of readLines(path)) {
    const head = parseHead(line);
    if (head.accountId <= before) {
      throw new SettingsError(
        `${line.where}: ${head.accountId} comes after ${before}. --since needs the heads in the order in which highload-balance heads prints them, and each account once: LC_ALL=C sort FILE`,
      );
    }
    before = head.accountId;
    yield head;
  }
}

function parseHead({ text, where }: Line): ChainHead {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new SettingsError(
      `${where} is not JSON: each line has to be a head such as {"accountId":"alice","version":1,"epoch":1795464000000,"hash":"…"}`,
    );
  }
  const head = chainHead.safeParse(json);
  if (head.success) return head.data;
  throw new SettingsError(`${where} is not a head: ${findings(head.error)}`);
}
