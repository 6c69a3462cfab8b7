// Mutants of the way from the outbox to the ledger and to subscribers.
import { edit, type Mutant, QUIET } from './mutant.ts';

const OUTBOX = 'src/api/relay/outbox.ts';
const TRACK = 'src/api/relay/track.ts';
const TRUNCATION = 'src/api/relay/truncation.ts';
const DELIVERIES = 'src/worker/deliveries.ts';
const LEDGER = 'src/worker/ledger.ts';
const QUEUE_LOSS = ['queue-deleted', 'queue-purged'];

export const ofDelivery: readonly Mutant[] = [
  {
    name: 'confirm-is-enough',
    breaks: 'a confirmed event counts as recorded, whether the ledger has it or not',
    edits: [edit(OUTBOX, 'ledger.account_id IS NOT NULL AS recorded', 'true AS recorded')],
    faults: QUEUE_LOSS,
    expected: ['conserved', 'never lost', 'stuck'],
  },
  {
    name: 'truncated-unread',
    breaks: 'the outbox is truncated while changes in it are not in the ledger',
    edits: [
      edit(
        TRUNCATION,
        'if (recording.floor < last || Math.min(ledger.done(), subscribers.done()) < last) return false;',
        '',
      ),
      edit(
        TRUNCATION,
        'if (!(await this.#isCounted(left)) && !(await this.#isRecorded(left))) {',
        'if (left.bytes < 0) {',
      ),
      edit(TRUNCATION, 'const PARTITION_BYTES_MIN = 2 * 1024 * 1024;', 'const PARTITION_BYTES_MIN = 1;'),
    ],
    faults: ['broker-alarm', 'broker-kill'], // otherwise the ledger has everything before a partition can be emptied
    expected: ['conserved', 'never lost', 'stuck'],
  },
  {
    name: 'never-published-again',
    breaks: 'what the ledger lacks is not published again',
    edits: [
      edit('src/api/relay/lost.ts', 'this.#pass ??= (await this.#findBelow(nowMs)) ?? (await this.#find(nowMs));', ''),
    ],
    faults: QUEUE_LOSS,
    expected: ['stuck', 'never lost'],
  },
  {
    name: 'holes-shown',
    breaks: 'a page shows entries above one that the ledger lacks',
    edits: [edit('src/api/calls/ledger-version.ts', 'WHEN newest = proven.version + entries', 'WHEN true')],
    faults: QUEUE_LOSS,
    expected: ['histories'],
  },
  {
    name: 'gaps-forgotten',
    breaks: 'a change that commits after a later position was read is passed over',
    edits: [edit('src/api/relay/outbox-cursor.ts', 'if (position > behind + 1) gaps', 'if (position < behind) gaps')],
    faults: QUIET,
    expected: ['stuck', 'never lost', 'conserved', 'events'],
  },
  {
    name: 'published-out-of-order',
    breaks: 'the events of a page are published last first',
    edits: [edit(TRACK, 'const message = rows.slice(first', 'const message = [...rows].reverse().slice(first')],
    faults: QUIET,
    expected: ['events'],
  },
  {
    name: 'confirmed-early',
    breaks: 'an event counts as confirmed when it was sent',
    edits: [
      edit(
        'src/api/relay/publisher.ts',
        "done(returned.delete(id) ? 'unroutable' : error ? 'rejected' : 'confirmed');",
        "returned.delete(id);\n        done(error ? 'confirmed' : 'confirmed');",
      ),
    ],
    faults: ['subscriber-full'],
    expected: ['missed'],
  },
  {
    name: 'rejections-dropped',
    breaks: 'an event that one full queue refused is not tried again',
    edits: [edit(TRACK, '|| isDone) continue;\n      this.#owed.add(position);', '|| isDone) continue;')],
    faults: ['subscriber-full'],
    expected: ['missed'],
  },
  {
    name: 'unconfirmed-forgotten',
    breaks: 'what waits for its confirm when a session ends is not published again to subscribers',
    edits: [
      edit(
        TRACK,
        'for (const position of this.#inFlight) this.#owed.add(position);\n    this.#inFlight.clear();',
        'this.#inFlight.clear();',
      ),
    ],
    faults: ['subscriber-hung', 'broker-kill'],
    expected: ['missed', 'events'],
  },
  {
    name: 'acked-before-commit',
    breaks: 'messages are acknowledged before they are recorded',
    edits: [
      edit(
        'src/worker/consumer.ts',
        'const refused = await record(batch, options, signal, counts, spans);\n  if (refused) settle(channel, batch, refused);',
        'settle(channel, batch, new Set());\n  const refused = await record(batch, options, signal, counts, spans);',
      ),
    ],
    faults: ['worker-kill'],
    expected: ['forgeries'],
  },
  {
    name: 'refused-while-the-database-is-away',
    breaks: 'true events are dead-lettered while PostgreSQL does not answer',
    edits: [
      edit(
        DELIVERIES,
        'counts.retries += 1;\n',
        'counts.retries += 1;\n      return new Set(batch.map(({ message }) => message));\n',
      ),
    ],
    faults: ['database-stop', 'worker-database-cut-before-answer'],
    expected: ['events'],
  },
  {
    name: 'conflict-taken-for-a-duplicate',
    breaks: 'an event that contradicts its entry counts as a repeat of it',
    edits: [
      edit(LEDGER, `\n    WHERE \${changeRow('ledger')} IS NOT DISTINCT FROM \${changeRow('delivered')}\`,`, '`,'),
    ],
    faults: ['forged-events'],
    expected: ['forgeries'],
  },
  {
    name: 'forgeries-recorded',
    breaks: 'an event is recorded whether the outbox knows it or not',
    edits: [
      edit(
        LEDGER,
        `SELECT \${CHANGE_COLUMNS.map(([column]) => \`outbox.\${column}\`).join(', ')}`,
        `SELECT \${CHANGE_COLUMN_NAMES}`,
      ),
      edit(
        LEDGER,
        `      CROSS JOIN LATERAL (
        SELECT * FROM outbox WHERE outbox.account_id = delivered.account_id AND outbox.version = delivered.version LIMIT 1
      ) outbox
      WHERE \${changeRow('outbox')} IS NOT DISTINCT FROM \${changeRow('delivered')}
      ORDER BY outbox.account_id COLLATE "C", outbox.version
`,
        '',
      ),
    ],
    faults: ['forged-events'],
    expected: ['asked for', 'conserved'],
  },
  {
    name: 'forgeries-taken-for-a-lost-history',
    breaks: 'an event that no change stands behind is dropped as if the database had lost it',
    edits: [edit(LEDGER, "superseded.has(change) ? 'superseded' : 'forged'", "'superseded'")],
    faults: ['forged-events'],
    expected: ['forgeries'],
  },
  {
    name: 'rubbish-acknowledged',
    breaks: 'a message that is no event vanishes',
    edits: [edit(DELIVERIES, 'refused.add(message);\n    counts.malformed += 1;', 'counts.malformed += 1;')],
    faults: ['forged-events'],
    expected: ['forgeries'],
  },
];
