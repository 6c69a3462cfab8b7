// Limits how many declines of one client are remembered. Each is a row that is kept with its
// idempotency key for a day or two, and costs a client nothing to cause. Beyond the limit a decline
// is answered as rate_limited and not remembered: nothing was decided, so a retry under the key
// decides it. Operations that apply, and declines that were remembered, are answered as usual.

/** Clients that are counted; more than there can be with keys. */
const CLIENTS_MAX = 4000;

/**
 * As a bucket that holds `declinesMax` and refills over `keptMs`: kept as the time at which it will
 * be full again.
 */
export class DeclineLimit {
  readonly #keptMs: number;
  readonly #refillMs: number;
  readonly #now: () => number;
  readonly #fullAtMs = new Map<string, number>();
  readonly #spent = new Set<string>();

  /** @param declinesMax in `keptMs`; Infinity: no limit. */
  constructor(declinesMax: number, keptMs: number, now: () => number = () => performance.now()) {
    this.#keptMs = keptMs;
    this.#refillMs = keptMs / declinesMax;
    this.#now = now;
  }

  /** A decline that was remembered. */
  count(client: string): void {
    if (this.#refillMs === 0) return;
    const nowMs = this.#now();
    const fullAtMs = Math.max(nowMs, this.#fullAtMs.get(client) ?? 0) + this.#refillMs;
    if (this.#fullAtMs.size >= CLIENTS_MAX) this.#forgetFull(nowMs);
    this.#fullAtMs.set(client, fullAtMs);
    if (fullAtMs > nowMs + this.#keptMs - this.#refillMs) this.#spent.add(client);
  }

  /** Whether no more declines of this client are remembered for now. */
  isSpent(client: string): boolean {
    if (this.#spent.size === 0 || !this.#spent.has(client)) return false;
    if ((this.#fullAtMs.get(client) ?? 0) > this.#now() + this.#keptMs - this.#refillMs) return true;
    this.#spent.delete(client);
    return false;
  }

  #forgetFull(nowMs: number): void {
    for (const [client, fullAtMs] of this.#fullAtMs) if (fullAtMs <= nowMs) this.#fullAtMs.delete(client);
  }
}
