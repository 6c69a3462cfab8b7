// npm run test:attacks: what attackers' own tools find against the service, run as it is. Nothing
// above information, no answer of 500 or above, none that the document does not state; an honest
// client continues meanwhile, and what was written adds up.
import { mkdtemp } from 'node:fs/promises';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openApiDocument } from '../../src/api/reference/openapi.ts';
import { cleanUp, createFolder, drained } from '../support/harness.ts';
import { type OpenApi, readDocument } from '../support/openapi/document.ts';
import { FUZZES, fuzz } from './ffuf.ts';
import { type Finding, summed } from './findings.ts';
import { requireProgram } from './programs.ts';
import { type Service, startService, type Target } from './service.ts';
import { CONNECTIONS, MODES, slowly } from './slowhttptest.ts';
import { inject, requestOfHeaders, requestsOf } from './sqlmap.ts';
import { readsOf, scan } from './wapiti.ts';

let service: Service;
let folder: string;

beforeAll(async () => {
  folder = await createFolder();
  service = await startService();
  print('tool', 'what', 's', 'answers', 'honest updates', 'p99 / max ms', 'without CPU %', 'MB', 'findings');
  print('---', '---', '---:', '---', '---:', '---:', '---:', '---:', '---');
});
afterAll(cleanUp);

/** @param attack leaves its files in the folder that it is given. */
async function attacked(
  tool: string,
  what: string,
  target: Target,
  attack: (place: string) => Promise<Finding[]>,
): Promise<void> {
  requireProgram(tool);
  const place = await mkdtemp(path.join(folder, `${tool}-`));
  const startedAtMs = performance.now();
  const { answers, updates, honestMs, starvedPercent, megabytes, findings } = await service.watch(target, () =>
    attack(place),
  );
  const seconds = Math.round((performance.now() - startedAtMs) / 1000);
  const found = summed(findings).join('; ') || 'none';
  print(tool, `${what}, AUTH=${target.auth}`, seconds, answers, updates, honestMs, starvedPercent, megabytes, found);
  expect(summed(findings.filter(({ level }) => level !== 'information'))).toEqual([]);
}

/** A row of the table. */
function print(...cells: unknown[]): void {
  console.log(`| ${cells.map((cell) => String(cell).replaceAll(/[|\r\n]+/g, ' ')).join(' | ')} |`);
}

describe.each(['required', 'off'] as const)('AUTH=%s', (auth) => {
  const { calls } = readDocument(openApiDocument('0.0.0', auth) as OpenApi);
  const target = () => service.targets[auth];
  const headers = () => (target().header ? [target().header] : []);

  it.each(Object.keys(MODES))('slowhttptest, %s: others are answered all the time', async (mode) => {
    const { url, header } = target();
    await attacked('slowhttptest', `${mode}, ${CONNECTIONS} connections`, target(), (place) =>
      slowly(mode, url, header, place),
    );
  });

  it.each(calls.map((call) => ({ call, name: call.operation.operationId })))(
    'sqlmap, $name: no parameter reaches SQL',
    async ({ call }) => {
      const { host } = new URL(target().tapUrl);
      for (const request of requestsOf(call, service.samples, host, headers()))
        await attacked('sqlmap', request.name, target(), (place) => inject(request, place));
    },
  );

  it('sqlmap, headers: none reaches SQL', async () => {
    const request = requestOfHeaders(new URL(target().tapUrl).host, target().header);
    await attacked('sqlmap', request.name, target(), (place) => inject(request, place));
  });

  it.each(FUZZES.filter(({ isOfKeys }) => auth === 'required' || !isOfKeys))(
    'ffuf, $what: nothing that the documents do not state',
    async (one) => {
      requireProgram('dirb'); // for its lists
      const { tapUrl } = target();
      const key = headers().flatMap((header) => ['-H', header]);
      await attacked('ffuf', one.what, target(), (place) => fuzz(one, tapUrl, key, place));
    },
  );

  it('wapiti: the pages and the reads have no hole that it knows', async () => {
    const { tapUrl, header } = target();
    const reads = calls.filter(({ method }) => method === 'get').flatMap((call) => readsOf(call, service.samples));
    await attacked('wapiti', 'pages and reads', target(), (place) =>
      scan(tapUrl, ['/docs', '/console', ...reads], header, place),
    );
  });
});

it('afterwards every entry is in the ledger, and adds up', async () => {
  expect(await drained(service.database)).toMatchObject({ offendingAccounts: 0 });
});
