export interface LockRecord {
  pid: number;
  identity: string;
  [note: string]: unknown;
}
export function processIdentity(pid: number): string | undefined;
export function lockHolder(path: string): LockRecord | undefined;
export function takeLock(
  path: string,
  note?: Record<string, unknown>,
): { release: () => void; holder?: undefined } | { holder: LockRecord; release?: undefined };
