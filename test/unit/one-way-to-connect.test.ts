import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const SOURCES = fileURLToPath(new URL('../../src/', import.meta.url));

/** A driver of PostgreSQL, as more than a type. */
const DRIVER =
  /^(import (?!type\b)[^;]*from|export [^;]*from|import)\s*\(?'pg(-[a-z-]+)?(\/[^']*)?'|(import|require)\(['"]pg/m;

const files = readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter((file) => /\.m?[jt]s$/.test(file));

it('leaves no file but the two that connect a way to reach PostgreSQL by itself', () => {
  const reaching = files.filter((file) => DRIVER.test(readFileSync(SOURCES + file, 'utf8')));
  expect(reaching.sort()).toEqual(['shared/database-url.ts', 'shared/database.ts']);
});

it.each([
  [`import pg from 'pg';`, true],
  [`import { Client } from 'pg';`, true],
  [`import { type PoolClient, Pool } from 'pg';`, true],
  [`const pg = await import('pg');`, true],
  [`const pg = require('pg');`, true],
  [`import pool from 'pg-pool';`, true],
  [`import type pg from 'pg';`, false],
  [`import type { PoolClient } from 'pg';`, false],
  [`import { pino } from 'pino';`, false],
])('sees through %s', (line, reaches) => {
  expect(DRIVER.test(line)).toBe(reaches);
});
