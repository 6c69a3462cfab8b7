// One version everywhere, and labels of the container image that say what package.json says.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const read = (file: string) => readFileSync(fileURLToPath(new URL(`../../${file}`, import.meta.url)), 'utf8');
const dockerfile = read('Dockerfile');
const { name, version, description, license, repository } = JSON.parse(read('package.json'));

const labels = Object.fromEntries(
  [...dockerfile.matchAll(/org\.opencontainers\.image\.(\w+)="([^"]*)"/g)].map(([, label, value]) => [label, value]),
);
const argumentsOf = Object.fromEntries(
  [...dockerfile.matchAll(/^ARG (\w+)=(\S*)$/gm)].map(([, argument, value]) => [argument, value]),
);

it('the labels of the image equal package.json', () => {
  expect(labels).toEqual({
    title: name,
    description,
    licenses: license,
    version: '$VERSION',
    revision: '$REVISION',
    ...(repository && { source: repository.url }),
  });
});

it('an image that is built without arguments has the version of package.json, and an unknown revision', () => {
  expect(argumentsOf).toEqual({ VERSION: version, REVISION: 'unknown' });
});

it('the lock file and the documents name the version of package.json', () => {
  const { version: locked, packages } = JSON.parse(read('package-lock.json'));
  expect([locked, packages[''].version]).toEqual([version, version]);
  const pages = ['README.md', 'docs/client.md'];
  for (const page of pages) {
    const named = [...read(page).matchAll(/highload-balance-(\d[\d.]*)\.tgz/g)].map(([, one]) => one);
    expect(new Set(named), page).toEqual(new Set([version]));
  }
});
