import { expect, it } from 'vitest';
import { withoutPassword } from '../../src/shared/without-password.ts';

it.each([
  ['postgres://user:secret@host:5432/db', 'postgres://user:***@host:5432/db'],
  ['postgres://user:sec/r@et:@host/db', 'postgres://user:***@host/db'],
  ['amqps://user:secret@host', 'amqps://user:***@host'],
  [
    'postgres://host/db?user=me&password=secret&sslmode=require',
    'postgres://host/db?user=me&password=***&sslmode=require',
  ],
  ['postgres://user@host/db', 'postgres://user@host/db'],
])('shows %s without its password', (url, shown) => {
  expect(withoutPassword(url)).toBe(shown);
});
