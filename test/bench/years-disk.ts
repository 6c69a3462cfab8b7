// What a ledger of years takes on disk, and how long VACUUM takes.
import type { Client } from '../../src/shared/database.ts';
import type { Bounds } from './bounds.ts';
import { short } from './numbers.ts';
import { seconds } from './seconds.ts';
import type { History } from './years-fill.ts';

export const gigabytes = (bytes: number) => `${short(bytes / 2 ** 30)} GB`;

const SIZES = `
  SELECT relname AS name, relkind = 'r' AS is_table, pg_relation_size(oid) AS bytes FROM pg_class
  WHERE relname IN ('ledger', 'ledger_chain', 'hold', 'account')
     OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ('ledger'::regclass, 'ledger_chain'::regclass, 'hold'::regclass))
  ORDER BY pg_relation_size(oid) DESC`;

export async function measureSizes({ tell }: Bounds, client: Client, { entries }: History): Promise<void> {
  const { rows } = await client.query(SIZES);
  const each = (bytes: number) => `${short(bytes / entries)} bytes an entry`;
  tell(
    'on disk, all of these',
    `${gigabytes(rows.reduce((sum, { bytes }) => sum + bytes, 0))}, ${each(rows.reduce((sum, { bytes }) => sum + bytes, 0))}`,
  );
  for (const { name, is_table, bytes } of rows)
    if (bytes / entries >= 0.1)
      tell(`${is_table ? 'table' : 'index'} \`${name}\``, `${gigabytes(bytes)}, ${each(bytes)}`);
}

const FROZEN = `
  SELECT round(100.0 * relallfrozen / relpages)::integer AS percent FROM pg_class WHERE oid = $1::regclass`;

/** As autovacuum does it by default, and then what that leaves for the day on which everything has to be frozen. */
export async function measureVacuum({ tell }: Bounds, client: Client): Promise<void> {
  for (const table of ['ledger', 'ledger_chain']) {
    const plain = await seconds(() => client.query(`VACUUM (ANALYZE) ${table}`));
    const { percent } = (await client.query(FROZEN, [table])).rows[0];
    const freeze = await seconds(() => client.query(`VACUUM (FREEZE) ${table}`));
    const again = await seconds(() => client.query(`VACUUM (FREEZE) ${table}`));
    tell(
      `VACUUM of \`${table}\`; then with FREEZE; again, with nothing new`,
      `${short(plain)} s, which freezes ${percent} % of the pages; ${short(freeze)} s; ${short(again)} s`,
    );
  }
}

/** Of what was written since, as autovacuum does it: the tables have autovacuum_freeze_min_age = 0. */
export async function measureNewVacuum({ tell }: Bounds, client: Client): Promise<void> {
  await client.query('SET vacuum_freeze_min_age = 0');
  const took = await seconds(() => client.query('VACUUM ledger'));
  const { percent } = (await client.query(FROZEN, ['ledger'])).rows[0];
  tell('VACUUM of `ledger` after these writes', `${short(took)} s; ${percent} % of the pages are frozen`);
}
