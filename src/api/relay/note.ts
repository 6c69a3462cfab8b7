// Duty "note": records how far both tracks are, for the next relay and for monitoring.
import type { Pool } from '../../shared/database.ts';
import { type Noted, noteProgress } from './progress.ts';
import type { Recording } from './recording.ts';
import type { Track } from './track.ts';

export class Notes {
  /** After a failover, what was done since the last note is published again. */
  readonly pauseMs = 250;
  readonly #database: Pool;
  readonly #recording: Recording;
  readonly #ledger: Track;
  readonly #subscribers: Track;
  readonly #noted: Record<Noted, number>;

  constructor(database: Pool, recording: Recording, ledger: Track, subscribers: Track) {
    this.#database = database;
    this.#recording = recording;
    this.#ledger = ledger;
    this.#subscribers = subscribers;
    this.#noted = { ledger: recording.floor, published: ledger.done(), subscribers: subscribers.done() };
  }

  async round(): Promise<void> {
    const done: Record<Noted, number> = {
      ledger: this.#recording.floor,
      published: this.#ledger.done(),
      subscribers: this.#subscribers.done(),
    };
    // It falls when something is owed again: noted is what is above the last note then.
    const higher = (Object.keys(done) as Noted[]).filter((track) => done[track] > this.#noted[track]);
    if (higher.length > 0) {
      await noteProgress(
        this.#database,
        higher,
        higher.map((track) => done[track]),
      );
    }
    Object.assign(this.#noted, done);
  }
}
