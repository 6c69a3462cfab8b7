// Values of options, checked.
import { z } from '../shared/zod.ts';
import { UsageError } from './arguments.ts';

export const whole = (max: number) => {
  const what = `must be a whole number from 1 to ${max}`;
  return z
    .string()
    .regex(/^\d{1,16}$/, what)
    .transform(Number)
    .refine((value) => value >= 1 && value <= max, what);
};

/** Events a second at most. */
export const RATE_MAX = 100_000;
const RATE = 2000;

/** @throws UsageError */
export function rate(value: string | undefined): number {
  return check('--rate', whole(RATE_MAX), value) ?? RATE;
}

/** @throws UsageError that says what the option must be. */
export function check<Schema extends z.ZodType>(option: string, schema: Schema, value: string | undefined) {
  if (value === undefined) return undefined;
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw new UsageError(`${option} ${value}: it ${result.error.issues[0]?.message}.`);
}
