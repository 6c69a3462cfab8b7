// Names of changes: `<accountId>:<version>:<epoch in base 36>`, which is the id of their event. The
// id of a transfer is the event id of its lowest debited leg.
import { accountId, text } from '../../shared/balance.ts';
import { eventId as eventIdOf } from '../../shared/change.ts';

export interface ChangeName {
  accountId: string;
  version: number;
  epoch: number;
}

/** The epoch of the examples. */
export const EXAMPLE_EPOCH = Date.parse('2026-11-23T20:00:00.000Z');
export const EXAMPLE_EVENT_ID = eventIdOf({ accountId: 'alice', version: 1, epoch: EXAMPLE_EPOCH });

/** The parts of one; undefined where it has another form. */
export function parseEventId(id: string): ChangeName | undefined {
  const [, account = '', version = '', epoch = ''] = /^(.+):(0|[1-9]\d{0,15}):([1-9a-z][0-9a-z]{0,10})$/.exec(id) ?? [];
  const name = { accountId: account, version: Number(version), epoch: Number.parseInt(epoch, 36) };
  if (!accountId.safeParse(account).success || eventIdOf(name) !== id) return undefined;
  return Number.isSafeInteger(name.version) && Number.isSafeInteger(name.epoch) ? name : undefined;
}

/** Of an event id that was checked. */
export function accountOf(id: string): string {
  return (parseEventId(id) as ChangeName).accountId;
}

/** An account id, 16 digits, 11 digits of base 36, and the colons between them. */
const CHARACTERS_MAX = 93;
const FORM = /^(\.*[A-Za-z0-9_:-][A-Za-z0-9._:-]*|\.{3,}):(0|[1-9][0-9]{0,15}):[1-9a-z][0-9a-z]{0,10}$/;

/** In answers. */
export const eventId = text(CHARACTERS_MAX, FORM, 'must be an eventId');

/** In requests. @param what the sentence that says what it must be. */
export const eventIdAsked = (what: string) =>
  text(CHARACTERS_MAX, FORM, what).refine((id) => parseEventId(id) !== undefined, what);

export const transferIdAsked = eventIdAsked('must be a transferId, such as alice:1:mwtowow0');
