// --expires of a key: a date, a time, or how long from now.

import { moment } from '../shared/balance.ts';
import { z } from '../shared/zod.ts';

export type Expiry = { at: Date } | { afterMs: number };

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const UNITS_MS = { m: MINUTE_MS, h: 60 * MINUTE_MS, d: DAY_MS, w: 7 * DAY_MS };
/** A key that must last longer is created without it. */
export const EXPIRY_MS_MAX = 3653 * DAY_MS;

const FORMS =
  'must be a date (2027-06-30, meaning its start in UTC), a time (2027-06-30T12:00:00Z), or a duration from now in m, h, d or w (90d)';

const duration = z
  .string()
  .regex(/^[1-9]\d{0,6}[mhdw]$/)
  .transform((text) => ({ afterMs: Number(text.slice(0, -1)) * UNITS_MS[text.at(-1) as keyof typeof UNITS_MS] }));
const date = z.iso.date().transform((text) => ({ at: new Date(`${text}T00:00:00Z`) }));
const time = moment().transform((at) => ({ at }));

export const expiry: z.ZodType<Expiry> = z.union([duration, date, time], FORMS);
