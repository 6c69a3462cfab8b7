// Histories over HTTP: what an account was worth at some time, entries by time, direction, type,
// reference, transfer and hold, accounts by prefix, and histories as files.
import { once } from 'node:events';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { SCANNED_MAX } from '../../src/api/calls/history-store.ts';
import {
  applyDirectly,
  cleanUp,
  createAccount,
  createBroker,
  createDatabase,
  type Database,
  drained,
  fillLedger as fillWithReference,
  insertAccounts,
  onCleanUp,
  send,
  startApiHere,
  startWorkerHere,
  until,
} from '../support/harness.ts';
import { changeRow, fillLedger, insertAccountRows, insertEntries } from '../support/ledger-rows.ts';

interface Entry {
  version: number;
  type: string;
  amount: number;
  balance: number;
  held: number;
  createdAt: string;
  reference?: string;
}

let database: Database;
let url: string;
let entries: Entry[]; // of `busy`, oldest first

const get = (path: string) => send(url, 'GET', path);
const query = (parameters: Record<string, string | number>) => new URLSearchParams(parameters as never).toString();

beforeAll(async () => {
  database = await createDatabase();
  const broker = createBroker();
  ({ url } = await startApiHere(database, broker));
  await startWorkerHere(database, broker);
  await createAccount(url, 'busy');
  for (let number = 1; number <= 60; number += 1) {
    const amount = number % 3 === 0 ? -number : 2 * number;
    const update = { accountId: 'busy', amount, reference: `order ${number % 7}` };
    expect((await send(url, 'POST', '/v1/balance-updates', update)).status).toBe(200);
    // Changes that move no money.
    if (number % 10 !== 0) continue;
    const change = { overdraftLimit: number, ...(number === 30 && { maxBalance: 10_000 }) };
    expect((await send(url, 'PATCH', '/v1/accounts/busy', change)).status).toBe(200);
  }
  await drained(database);
  entries = (await get('/v1/accounts/busy/entries?limit=1000')).body.entries.reverse();
  expect(entries.map(({ version }) => version)).toEqual(Array.from({ length: 67 }, (_, version) => version));
});
afterAll(cleanUp);

it('says of a damaged history that something is wrong, not that it was 0 or that there is none', async () => {
  await insertAccounts(database, 'damaged');
  await database.pool.query(`UPDATE account SET version = 5, balance = 5 WHERE account_id = 'damaged'`);
  for (const moment of ['version=3', `at=${new Date(Date.now() - 1000).toISOString()}`]) {
    const { status, body } = await get(`/v1/accounts/damaged/balance?${moment}`);
    expect({ status, code: body.code }, moment).toEqual({ status: 500, code: 'internal' });
  }
  expect((await get('/v1/accounts/damaged/balance?version=0')).body).toMatchObject({ balance: 0 });
});

describe('a past balance', () => {
  const balance = (parameters: Record<string, string | number>) =>
    get(`/v1/accounts/busy/balance?${query(parameters)}`);

  it('of each version is what its entry left', async () => {
    for (const { version, balance: left, held, createdAt } of entries) {
      expect((await balance({ version })).body).toEqual({ accountId: 'busy', version, balance: left, held, createdAt });
    }
    const above = await balance({ version: entries.length });
    expect(above).toMatchObject({
      status: 400,
      body: { code: 'invalid_request', errors: [{ where: 'query version' }] },
    });
  });

  it('at a time is that of the last change up to then', async () => {
    const times = [...new Set(entries.flatMap(({ createdAt }) => [-1, 0, 1].map((ms) => Date.parse(createdAt) + ms)))];
    for (const time of times) {
      const last = entries.findLast(({ createdAt }) => Date.parse(createdAt) <= time);
      const { status, body } = await balance({ at: new Date(time).toISOString() });
      expect({ status, ...body }).toMatchObject({
        status: 200,
        version: last?.version ?? null,
        balance: last?.balance ?? 0,
        held: 0,
      });
    }
    const withZone = await balance({ at: '2000-01-01T00:00:00+02:00' });
    expect(withZone.body).toEqual({ accountId: 'busy', version: null, balance: 0, held: 0, createdAt: null });
  });

  it('has what was held, too', async () => {
    await insertAccountRows(database.pool, ['holding'], 3);
    await insertEntries(database.pool, [
      changeRow('holding', 0),
      changeRow('holding', 1, { amount: 10, balance: 10 }),
      changeRow('holding', 2, { type: 'hold.placed', amount: 0, heldChange: 4, balance: 10, held: 4 }),
      changeRow('holding', 3, { type: 'balance.debited', amount: -4, heldChange: -4, balance: 6, held: 0 }),
    ]);
    const held = async (parameters: string) => {
      const { body } = await get(`/v1/accounts/holding/balance?${parameters}`);
      return [body.version, body.balance, body.held];
    };
    expect(await held('version=2')).toEqual([2, 10, 4]);
    expect(await held('version=3')).toEqual([3, 6, 0]);
    expect(await held(query({ at: '2026-11-23T20:00:00Z' }))).toEqual([3, 6, 0]);
    expect(await held(query({ at: '2026-11-23T19:59:59Z' }))).toEqual([null, 0, 0]);
  });

  it('is in the future by the clock of the database, whatever that of the API says', async () => {
    const databaseNow = async () => (await database.pool.query('SELECT clock_timestamp() AS now')).rows[0].now as Date;
    const now = (await databaseNow()).getTime();
    const at = (ms: number) => balance({ at: new Date(ms).toISOString() });
    try {
      vi.useFakeTimers({ toFake: ['Date'], now: now - 3_600_000 });
      expect(await at(now)).toMatchObject({ status: 200, body: { version: entries.length - 1 } });
      vi.setSystemTime(now + 7_200_000);
      const early = await at(now + 3_600_000);
      expect(early).toMatchObject({ status: 400, body: { errors: [{ where: 'query at', what: 'is in the future' }] } });
    } finally {
      vi.useRealTimers();
    }
  });

  it('knows changes that the ledger does not hold yet', async () => {
    const alone = await createDatabase(); // no worker, no relay
    const { url: aloneUrl } = await startApiHere(alone, createBroker(), { RELAY: 'off' });
    await insertAccounts(alone, 'fresh');
    for (const amount of [5, 7, -2]) await applyDirectly(alone.pool, 'fresh', amount);
    const at = async (parameters: string) =>
      (await send(aloneUrl, 'GET', `/v1/accounts/fresh/balance?${parameters}`)).body;
    expect(await at('version=2')).toMatchObject({ version: 2, balance: 12 });
    expect(await at(query({ at: new Date().toISOString() }))).toMatchObject({ version: 3, balance: 10 });
  });

  it.each([
    ['neither', ''],
    ['both', 'at=2026-01-01T00:00:00Z&version=1'],
    ['a future time', 'at=2999-01-01T00:00:00Z'],
    ['a time without a zone', 'at=2026-01-01T00:00:00'],
    ['no time', 'at=yesterday'],
    ['a version below 0', 'version=-1'],
    ['something unknown', 'version=1&when=now', 'is not a known parameter: correct its name, or leave it out'],
  ])('is refused with %s', async (_, parameters, what = expect.any(String)) => {
    const answer = await get(`/v1/accounts/busy/balance?${parameters}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
    expect(answer.body.errors).toContainEqual({ where: expect.stringMatching(/^query/), what });
  });

  it('of nobody is not found', async () => {
    const answer = await get('/v1/accounts/nobody/balance?version=0');
    expect(answer).toMatchObject({ status: 404, body: { code: 'account_not_found' } });
  });
});

describe('entries', () => {
  async function allPages(parameters: Record<string, string | number>, id = 'busy'): Promise<Entry[]> {
    const all: Entry[] = [];
    for (let cursor = ''; ; ) {
      const { body } = await get(
        `/v1/accounts/${id}/entries?${query({ ...parameters, limit: 4, ...(cursor ? { cursor } : {}) })}`,
      );
      expect(body.entries.length).toBeLessThanOrEqual(4);
      all.push(...body.entries);
      if (body.nextCursor === null) return all;
      cursor = body.nextCursor;
    }
  }

  it('by time, direction and reference are those that fit, whichever are combined', async () => {
    const from = entries[20]?.createdAt as string;
    const to = entries[45]?.createdAt as string;
    const choices = {
      from: [undefined, from],
      to: [undefined, to],
      direction: [undefined, 'credit', 'debit'], // a change without money is neither
      reference: [undefined, 'order 3'],
    };
    for (const one of choices.from) {
      for (const two of choices.to) {
        for (const three of choices.direction) {
          for (const four of choices.reference) {
            const parameters = {
              ...(one && { from: one }),
              ...(two && { to: two }),
              ...(three && { direction: three }),
              ...(four && { reference: four }),
            };
            const fitting = entries.filter(
              ({ createdAt, amount, reference }) =>
                (!one || createdAt >= one) &&
                (!two || createdAt < two) &&
                (!three || (three === 'credit' ? amount > 0 : amount < 0)) &&
                (!four || reference === four),
            );
            expect(await allPages(parameters), JSON.stringify(parameters)).toEqual(fitting.reverse());
          }
        }
      }
    }
  });

  describe('of which few fit', () => {
    const rows = 2 * SCANNED_MAX + 10;

    /** How many entries each page has. */
    async function pagesOf(id: string, parameters: string): Promise<number[]> {
      const pages: number[] = [];
      for (let cursor: string | null = ''; cursor !== null; ) {
        const { body } = await get(`/v1/accounts/${id}/entries?${parameters}${cursor && `&cursor=${cursor}`}`);
        pages.push(body.entries.length);
        cursor = body.nextCursor;
      }
      return pages;
    }

    beforeAll(async () => {
      const rare = {
        ...{ type: 'hold.released' as const, amount: 0, reference: 'rare', transferId: 'long:3:abc' },
        ...{ holdId: 'rare', holdStatus: 'released' as const, holdRemaining: 0 },
      };
      await fillLedger(database.pool, ['long'], 0, 2);
      await insertEntries(database.pool, [changeRow('long', 3, rare)]);
      await fillLedger(database.pool, ['long'], 4, rows - 1);
      // An account whose every entry has the same reference.
      await insertEntries(database.pool, [changeRow('noted', 0, { reference: 'common' })]);
      await fillWithReference(database, 'noted', rows - 1, 'common');
      await insertAccountRows(database.pool, ['long', 'noted'], rows - 1);
    });

    it('come in pages that may be empty, each bounded in what it looks at', async () => {
      expect(await pagesOf('long', 'type=hold.released')).toEqual([0, 0, 1]);
      expect(await pagesOf('noted', 'type=account.opened')).toEqual([0, 0, 1]);
    });

    it.each([
      'reference=rare',
      'holdId=rare',
      'transferId=long:3:abc',
      'holdId=rare&reference=rare&type=hold.released',
    ])('are found at once by %s', async (parameters) => expect(await pagesOf('long', parameters)).toEqual([1]));

    it('are as bounded where many have the reference and few the rest', async () => {
      expect(await pagesOf('noted', 'reference=common&type=account.opened')).toEqual([0, 0, 1]);
      const { body } = await get('/v1/accounts/noted/entries?reference=common&limit=2');
      expect(body.entries.map(({ version }: Entry) => version)).toEqual([rows - 1, rows - 2]);
      const response = await fetch(
        `${url}/v1/accounts/noted/entries/export?format=jsonl&reference=common&type=account.opened`,
      );
      expect((await response.text()).trimEnd().split('\n')).toHaveLength(1);
    });
  });

  describe('of transfers, holds and reversals', () => {
    type Moved = Entry & { transferId?: string; hold?: { id: string } };
    let moved: Moved[]; // oldest first

    beforeAll(async () => {
      const post = async (path: string, body: object) => {
        const answer = await send(url, 'POST', path, body);
        expect([200, 201], JSON.stringify(answer.body)).toContain(answer.status);
        return answer.body;
      };
      await createAccount(url, 'moving', 1000);
      await createAccount(url, 'other', 1000);
      for (let number = 1; number <= 4; number += 1) {
        const holds = '/v1/accounts/moving/holds';
        const reference = `trip ${number % 2}`;
        await post(holds, { holdId: `h${number}`, amount: 10, reference });
        await post(`${holds}/h${number}/capture`, { amount: 4, to: 'other', final: false, reference });
        await post(`${holds}/h${number}/capture`, { amount: 1, final: false });
        await post(`${holds}/h${number}/release`, { amount: 2, reference });
        const { transferId } = await post('/v1/transfers', { from: 'other', to: 'moving', amount: number, reference });
        await post('/v1/reversals', { of: transferId, reference: 'refund' });
      }
      await drained(database);
      moved = (await get('/v1/accounts/moving/entries?limit=1000')).body.entries.reverse();
      expect(moved).toHaveLength(2 + 4 * 6);
    });

    it('by type, hold, transfer and the rest are those that fit, whichever are combined, also in an export', async () => {
      const capture = moved.find(({ hold, transferId }) => hold?.id === 'h3' && transferId !== undefined);
      const choices: [string, (string | undefined)[], (entry: Moved, value: string) => boolean][] = [
        ['from', [undefined, moved[9]?.createdAt], (entry, from) => entry.createdAt >= from],
        [
          'direction',
          [undefined, 'credit', 'debit'],
          (entry, direction) => (direction === 'credit' ? entry.amount > 0 : entry.amount < 0),
        ],
        [
          'type',
          [undefined, 'account.opened', 'hold.placed', 'hold.released', 'balance.debited', 'hold.expired'],
          (entry, type) => entry.type === type,
        ],
        ['reference', [undefined, 'trip 1', 'refund'], (entry, reference) => entry.reference === reference],
        ['holdId', [undefined, 'h3', 'h9'], (entry, id) => entry.hold?.id === id],
        [
          'transferId',
          [undefined, capture?.transferId, 'other:99:abc'],
          (entry, transferId) => entry.transferId === transferId,
        ],
      ];
      const combined = choices.reduce<Record<string, string>[]>(
        (all, [name, values]) =>
          all.flatMap((one) => values.map((value) => (value === undefined ? one : { ...one, [name]: value }))),
        [{}],
      );
      expect(combined).toHaveLength(2 * 3 * 6 * 3 * 3 * 3);
      for (const parameters of combined) {
        const fitting = moved.filter((entry) =>
          choices.every(([name, , fits]) => parameters[name] === undefined || fits(entry, parameters[name])),
        );
        const asked = JSON.stringify(parameters);
        expect(await allPages(parameters, 'moving'), asked).toEqual(fitting.toReversed());
        if (Object.keys(parameters).length > 3) continue;
        const response = await fetch(
          `${url}/v1/accounts/moving/entries/export?${query({ ...parameters, format: 'jsonl' })}`,
        );
        const lines = (await response.text()).split('\n').slice(0, -1);
        expect(
          lines.map((line) => JSON.parse(line)),
          asked,
        ).toEqual(fitting);
      }
    });
  });

  it.each([
    'from=soon',
    'to=2026-13-01T00:00:00Z',
    'direction=up',
    'reference=',
    `reference=${'x'.repeat(256)}`,
    'type=hold',
    'type=',
    'transferId=alice',
    'transferId=alice:1:',
    'holdId=',
    'holdId=a%20b',
    'cursor=0',
    'order=asc',
  ])('are refused with %s', async (parameters) => {
    const answer = await get(`/v1/accounts/busy/entries?${parameters}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
  });
});

it('of nobody are not found', async () => {
  const answer = await get('/v1/accounts/nobody/entries');
  expect(answer).toMatchObject({ status: 404, body: { code: 'account_not_found' } });
});

describe('accounts', () => {
  it('are listed in order of id, page by page, by prefix', async () => {
    const ids = ['list:a', 'list:b', 'list:b1', 'list:c', 'list', 'list.', 'lisu', 'LIST:a', 'listz'];
    await insertAccounts(database, ...ids);
    const listed: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body } = await get(`/v1/accounts?${query({ prefix: 'list', limit: 2, ...(cursor ? { cursor } : {}) })}`);
      listed.push(...body.accounts.map(({ id }: { id: string }) => id));
      cursor = body.nextCursor;
    }
    expect(listed).toEqual(ids.filter((id) => id.startsWith('list')).sort());
    const { body } = await get('/v1/accounts?limit=1&prefix=busy');
    expect(body.accounts).toEqual([(await get('/v1/accounts/busy')).body]);
    expect((await get('/v1/accounts?prefix=nobody')).body).toEqual({ accounts: [], nextCursor: null });
  });

  it.each(['prefix=', 'prefix=a%20b', 'limit=0', 'limit=1001', 'cursor=%2F', 'page=2'])(
    'are refused with %s',
    async (parameters) => {
      const answer = await get(`/v1/accounts?${parameters}`);
      expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
    },
  );
});

describe('an export', () => {
  const exported = async (id: string, parameters: string) => {
    const response = await fetch(`${url}/v1/accounts/${id}/entries/export?${parameters}`, {
      signal: AbortSignal.timeout(30_000),
    });
    return { status: response.status, headers: response.headers, text: await response.text() };
  };

  it('in JSON lines has every entry as /entries shows it, oldest first', async () => {
    const { status, headers, text } = await exported('busy', 'format=jsonl');
    expect(status).toBe(200);
    expect(headers.get('content-type')).toBe('application/jsonl');
    expect(headers.get('content-disposition')).toBe('attachment; filename="busy.jsonl"');
    expect(
      text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(entries);
  });

  it('takes the filters of /entries', async () => {
    const { text } = await exported('busy', `format=jsonl&direction=debit&from=${entries[30]?.createdAt}`);
    const versions = text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).version);
    expect(versions).toEqual(
      entries
        .slice(30)
        .filter(({ amount }) => amount < 0)
        .map(({ version }) => version),
    );
  });

  it('of changes without money is a part of neither direction', async () => {
    const versions = async (direction: string) => {
      const { text } = await exported('busy', `format=jsonl&direction=${direction}`);
      const found: Entry[] = text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
      return found.map(({ version }) => version);
    };
    const found = [...(await versions('credit')), ...(await versions('debit'))];
    const moneyless = entries.filter(({ type }) => type.startsWith('account.')).map(({ version }) => version);
    expect(moneyless).toHaveLength(7);
    expect([...found, ...moneyless].sort((one, other) => one - other)).toEqual(entries.map(({ version }) => version));
  });

  const CSV_COLUMNS = [
    ...[
      'eventId',
      'type',
      'version',
      'epoch',
      'previousEpoch',
      'asset',
      'amount',
      'heldChange',
      'balance',
      'held',
      'createdAt',
    ],
    ...[
      'recordedAt',
      'reference',
      'actor',
      'metadata',
      'transferId',
      'reverses',
      'hold.id',
      'hold.status',
      'hold.remaining',
    ],
    ...['hold.expiresAt', 'limits.overdraftLimit', 'limits.maxBalance', 'limits.status'],
  ];

  /** RFC 4180. */
  const parseCsv = (text: string): string[][] => {
    const fields = [...text.matchAll(/("(?:[^"]|"")*"|[^",\r\n]*)(,|\r\n)/g)];
    const rows: string[][] = [[]];
    for (const [, field = '', end] of fields) {
      rows.at(-1)?.push(field.startsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field);
      if (end === '\r\n') rows.push([]);
    }
    expect(rows.pop()).toEqual([]);
    expect(fields.map(([all]) => all).join('')).toBe(text); // nothing was passed over
    return rows;
  };

  it('in CSV has a column for whatever an entry can have, with what /entries shows', async () => {
    await insertAccountRows(database.pool, ['full'], 2);
    await insertEntries(database.pool, [
      changeRow('full', 0, { overdraftLimit: 5, maxBalance: 900, actor: 'shop' }),
      changeRow('full', 1, {
        ...{ type: 'hold.placed', amount: 0, heldChange: 4, balance: 0, held: 4, reference: 'a, b', actor: 'shop' },
        ...{ metadata: '{"order":"1","x":"a\\"b"}', transferId: 'full:1:abc', reverses: 'full:0:abc' },
        ...{ holdId: 'h', holdStatus: 'active', holdRemaining: 4, holdExpiresAt: new Date('2026-12-01T00:00:00Z') },
      }),
      changeRow('full', 2, {
        type: 'balance.debited',
        amount: -4,
        heldChange: -4,
        balance: -4,
        held: 0,
        holdId: 'h',
        holdStatus: 'captured',
        holdRemaining: 0,
      }),
    ]);
    const shown = (await get('/v1/accounts/full/entries')).body.entries.reverse();
    const [head, ...lines] = parseCsv((await exported('full', 'format=csv')).text);
    expect(head).toEqual(CSV_COLUMNS);
    const cell = (entry: Record<string, unknown>, path: string) => {
      const value = path
        .split('.')
        .reduce<unknown>((one, name) => (one as Record<string, unknown> | undefined)?.[name], entry);
      return value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
    };
    expect(lines).toEqual(shown.map((entry: Record<string, unknown>) => CSV_COLUMNS.map((path) => cell(entry, path))));
    // And the other way: no member is without a column.
    const paths = (value: object, before = ''): string[] =>
      Object.entries(value).flatMap(([name, member]) =>
        typeof member === 'object' && name !== 'metadata' ? paths(member, `${before}${name}.`) : `${before}${name}`,
      );
    expect(new Set(shown.flatMap((entry: object) => paths(entry)))).toEqual(new Set(CSV_COLUMNS));
    const { text } = await exported('full', 'format=jsonl');
    expect(
      text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toEqual(shown);
  });

  it('in CSV quotes what has to be, and shows formulas as text', async () => {
    await createAccount(url, 'csv:1');
    const references = ['plain', 'a "quoted", one', '=1+1', '-5', '+x', '@y', 'ü'];
    for (const reference of references) {
      await send(url, 'POST', '/v1/balance-updates', { accountId: 'csv:1', amount: 1, reference });
    }
    await createAccount(url, '-1', 5);
    await drained(database);
    const { headers, text } = await exported('csv:1', 'format=csv');
    expect(headers.get('content-disposition')).toBe('attachment; filename="csv_1.csv"');
    expect(text.split('\r\n')[0]).toBe(CSV_COLUMNS.join(','));
    const of = (name: string) => CSV_COLUMNS.indexOf(name);
    expect(
      parseCsv(text)
        .slice(2)
        .map((line) => line[of('reference')]),
    ).toEqual(['plain', 'a "quoted", one', "'=1+1", "'-5", "'+x", "'@y", 'ü']);
    expect(text).toContain(',"a ""quoted"", one",');
    const [, opening, first] = parseCsv(text);
    const pattern = [
      /^csv:1:1:[0-9a-z]+$/,
      /^balance\.credited$/,
      /^1$/,
      /^\d{13}$/,
      /^\d{13}$/,
      /^UNIT$/,
      /^1$/,
      /^0$/,
      /^1$/,
      /^0$/,
    ];
    for (const [place, one] of pattern.entries()) expect(first?.[place]).toMatch(one);
    expect(opening?.slice(of('limits.overdraftLimit'))).toEqual(['0', '', 'open']);
    const ids = parseCsv((await exported('-1', 'format=csv')).text)
      .slice(1)
      .map(([eventId]) => eventId);
    expect(ids).toEqual([expect.stringMatching(/^'-1:0:/), expect.stringMatching(/^'-1:1:/)]);
  });

  it('of a long history that breaks off is no complete file, and more than two at once are refused', async () => {
    // Long enough that it does not fit into the buffers between a client that reads nothing and the
    // service.
    const rows = 80_000;
    await insertAccountRows(database.pool, ['huge'], rows - 1);
    for (let first = 0; first < rows; first += 20_000) {
      const versions = Array.from({ length: 20_000 }, (_, place) => first + place);
      await insertEntries(
        database.pool,
        versions.map((version) => changeRow('huge', version, { reference: 'x'.repeat(250) })),
      );
    }
    const { hostname, port } = new URL(url);
    /** Reads the beginning of an answer, and no more. */
    const startLazily = async () => {
      const socket = connect({ host: hostname, port: Number(port) });
      onCleanUp(async () => socket.destroy());
      socket.write('GET /v1/accounts/huge/entries/export?format=jsonl HTTP/1.1\r\nHost: localhost\r\n\r\n');
      const [beginning] = await once(socket, 'data');
      socket.pause();
      expect(String(beginning)).toMatch(/^HTTP\/1.1 200/);
      return socket;
    };
    const lazy = [await startLazily(), await startLazily()];
    const refused = await get('/v1/accounts/busy/entries/export?format=csv');
    expect(refused).toMatchObject({ status: 503, body: { code: 'overloaded' } });
    expect(refused.headers.get('retry-after')).toBe('1');
    expect((await get('/v1/accounts/busy')).status).toBe(200); // they leave connections for others

    lazy[0]?.destroy();
    await until('a place is free', async () => (await exported('busy', 'format=csv')).status === 200);

    // The statement behind the other one fails from now on.
    const [, reader] = lazy;
    let received = '';
    const closed = new Promise<void>((resolve) => reader?.once('close', () => resolve()));
    await database.pool.query('ALTER TABLE ledger RENAME TO ledger_away');
    reader?.on('data', (chunk) => {
      received = (received + chunk).slice(-100);
    });
    reader?.resume();
    await closed;
    await database.pool.query('ALTER TABLE ledger_away RENAME TO ledger');
    expect(received).not.toMatch(/0\r\n\r\n$/); // the last chunk of a complete answer
  });

  it.each(['', 'format=xml', 'format=csv&limit=5'])('is refused with "%s"', async (parameters) => {
    const answer = await get(`/v1/accounts/busy/entries/export?${parameters}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 'invalid_request' } });
  });

  it('of nobody is not found', async () => {
    const answer = await get('/v1/accounts/nobody/entries/export?format=csv');
    expect(answer).toMatchObject({ status: 404, body: { code: 'account_not_found' } });
  });
});
