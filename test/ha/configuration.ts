// The configurations of docs/high-availability, with the addresses, names, folders and programs of
// a run, and nothing else changed. So what the page documents is what was tested.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Machine } from './machine.ts';
import type { Programs } from './needs.ts';
import type { Network } from './network.ts';

export type Mode = 'synchronous' | 'asynchronous';
/** Which API of etcd Patroni uses. */
export type EtcdApi = 'v2' | 'v3';

export const PASSWORDS = { superuser: 'change-me-postgres', patroni: 'change-me-patroni' };
/** With older ones a leader that was frozen takes the lock back (docs/high-availability.md). */
const V3_SINCE = [3, 0, 3];

function documented(name: string): string {
  return readFileSync(fileURLToPath(new URL(`../../docs/high-availability/${name}`, import.meta.url)), 'utf8');
}

export function apiFor({ patroniVersion }: Programs): EtcdApi {
  const place = V3_SINCE.findIndex((part, index) => part !== (patroniVersion[index] ?? 0));
  return place >= 0 && (patroniVersion[place] ?? 0) < (V3_SINCE[place] as number) ? 'v2' : 'v3';
}

/** What must be there is replaced; what is not there any more is a defect of the test. */
function replaced(text: string, pattern: RegExp, replacement: string): string {
  const result = text.replaceAll(pattern, replacement);
  if (result === text && !pattern.test(text)) throw new Error(`the documented configuration has no ${pattern}`);
  return result;
}

/** The environment of the member of etcd on the machine. */
export function etcdEnvironment({ addressed }: Network, { name, address }: Machine, folder: string) {
  let text = addressed(documented('etcd.env'));
  text = replaced(text, /^(ETCD_(?:LISTEN|INITIAL_ADVERTISE|ADVERTISE)_.*http:\/\/)[\d.]+/gm, `$1${address}`);
  text = replaced(text, /^ETCD_NAME=.*/gm, `ETCD_NAME=${name}`);
  text = replaced(text, /^ETCD_DATA_DIR=.*/gm, `ETCD_DATA_DIR=${path.join(folder, 'etcd')}`);
  return Object.fromEntries(
    text
      .split('\n')
      .filter((line) => /^ETCD_/.test(line))
      .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]),
  );
}

export interface PatroniOptions {
  folder: string;
  binaries: string;
  mode: Mode;
  api: EtcdApi;
}

/** patroni.yml of the machine. */
export function patroniSettings({ addressed }: Network, { name, address }: Machine, options: PatroniOptions): string {
  const { folder, binaries, mode, api } = options;
  let text = addressed(documented('patroni.yml'));
  text = replaced(text, /(listen|connect_address): [\d.]+/g, `$1: ${address}`);
  text = replaced(
    text,
    /(host (?:all all|replication replicator)) [\d.]+\/24/g,
    `$1 ${address.replace(/\d+$/, '0/24')}`,
  );
  text = replaced(text, /^name: .*/gm, `name: ${name}`);
  text = replaced(text, /bin_dir: .*/g, `bin_dir: ${binaries}`);
  text = replaced(text, /data_dir: .*/g, `data_dir: ${path.join(folder, 'postgres')}`);
  text = replaced(text, /pgpass: .*/g, `pgpass: ${path.join(folder, 'pgpass')}`);
  if (api === 'v2') text = replaced(text, /^etcd3:/gm, 'etcd:');
  if (mode === 'asynchronous') text = replaced(text, /(synchronous_mode(?:_strict)?): true/g, '$1: false');
  // Debian's default is a folder that all machines of this test share.
  const ownSocket = `postgresql:\n  parameters:\n    unix_socket_directories: ${folder}`;
  return replaced(text, /^postgresql:/gm, ownSocket);
}

export function haproxySettings({ addressed }: Network, port: number): string {
  return replaced(addressed(documented('haproxy.cfg')), /bind 127\.0\.0\.1:5000/g, `bind 127.0.0.1:${port}`);
}

export function pgbouncerSettings(ports: { own: number; haproxy: number }, userlist: string): string {
  let text = replaced(documented('pgbouncer.ini'), /port=5000/g, `port=${ports.haproxy}`);
  text = replaced(text, /^listen_port = .*/gm, `listen_port = ${ports.own}`);
  return replaced(text, /^auth_file = .*/gm, `auth_file = ${userlist}`);
}
