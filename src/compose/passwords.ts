// The passwords of a system in containers: each is generated once, and kept. No one chooses one, so
// none can be guessed.
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { findings, z } from '../shared/zod.ts';
import { replaceFile } from './replace-file.ts';

/** Who has one: logins of PostgreSQL, users of RabbitMQ, and Grafana's administrator. */
const HOLDERS = {
  database: ['owner', 'api', 'worker', 'operator'],
  broker: ['api', 'worker', 'operator', 'subscriber'],
  grafana: ['admin'],
} as const;

export type Passwords = {
  [Server in keyof typeof HOLDERS]: Record<(typeof HOLDERS)[Server][number], string>;
};

const kept = z.record(z.string(), z.record(z.string(), z.string().min(1)));

/** Those in the file; missing ones are generated and added. */
export async function keptPasswords(file: string): Promise<Passwords> {
  const before = parsed(file, await readFile(file, 'utf8').catch(noneYet));
  const passwords = Object.fromEntries(
    Object.entries(HOLDERS).map(([server, holders]) => [
      server,
      Object.fromEntries(holders.map((holder) => [holder, before[server]?.[holder] ?? newPassword()])),
    ]),
  );
  await replaceFile(file, `${JSON.stringify(passwords, undefined, 2)}\n`);
  return passwords as Passwords;
}

function parsed(file: string, text: string): z.infer<typeof kept> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new Error(`${file} is damaged: it is not JSON. The servers still have the passwords that it held.`, {
      cause,
    });
  }
  const result = kept.safeParse(json);
  if (result.success) return result.data;
  throw new Error(`${file} is damaged: ${findings(result.error)}. The servers still have the passwords that it held.`);
}

function noneYet(error: NodeJS.ErrnoException): string {
  if (error.code !== 'ENOENT') throw error;
  return '{}';
}

/** 192 bits, of characters that mean nothing in a URL, in SQL or in JSON. */
const newPassword = () => randomBytes(24).toString('base64url');
