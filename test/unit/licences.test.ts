// docs/licences.md is what the lock file says, and nothing comes with the service that may not be
// passed on.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { LICENCES_FILE, licencesDocument, notAllowed, productionPackages, readLockFile } from '../licences.ts';

it('docs/licences.md is current; npm run licences writes it', () => {
  expect(readFileSync(LICENCES_FILE, 'utf8')).toBe(licencesDocument(productionPackages(readLockFile())));
});

it('only allowed licences come with the service', () => {
  const all = productionPackages(readLockFile());
  expect(all.map(({ name }) => name)).toEqual(expect.arrayContaining(['express', 'pg', 'amqplib']));
  expect(all.map(({ name }) => name)).not.toContain('vitest');
  expect(notAllowed(all)).toEqual([]);
});

it('a licence that is not allowed, or not stated, is found, also in a nested package', () => {
  const all = productionPackages({
    packages: {
      '': {},
      'node_modules/@scope/good': { version: '1.0.0', license: 'MIT' },
      'node_modules/@scope/good/node_modules/bad': { version: '2.0.0', license: 'AGPL-3.0-only' },
      'node_modules/silent': { version: '3.0.0' },
      'node_modules/tool': { version: '4.0.0', license: 'GPL-3.0-only', dev: true },
    },
  });
  expect(notAllowed(all).map(({ name }) => name)).toEqual(['bad', 'silent']);
});
