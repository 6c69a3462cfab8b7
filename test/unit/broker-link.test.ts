import { expect, it } from 'vitest';
import { backOffMs } from '../../src/shared/broker.ts';
import { brokerAdvice, describeBrokerFailure } from '../../src/shared/broker-failure.ts';

it('backs off further with each attempt, up to 5 s, and never twice alike', () => {
  const pausesOf = (attempt: number) => Array.from({ length: 200 }, () => backOffMs(attempt));
  for (const [attempt, ceilingMs] of [
    [1, 200],
    [3, 800],
    [6, 5000],
    [1_000_000, 5000],
  ] as const) {
    const pauses = pausesOf(attempt);
    expect(Math.min(...pauses)).toBeGreaterThanOrEqual(ceilingMs / 2);
    expect(Math.max(...pauses)).toBeLessThanOrEqual(ceilingMs);
    expect(new Set(pauses).size).toBeGreaterThan(50); // a fleet spreads over the half of it
  }
});

it('has no advice where waiting is the cure', () => {
  for (const message of [
    'connect ECONNREFUSED 127.0.0.1:5672',
    'Heartbeat timeout',
    'Channel closed by server: 406 (PRECONDITION-FAILED) with message "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out"',
    'Connection closed: 320 (CONNECTION-FORCED) with message "CONNECTION_FORCED - broker forced connection closure with reason \'shutdown\'"',
  ]) {
    expect(brokerAdvice('amqp://host', new Error(message))).toBeUndefined();
  }
});

it('never says the password, also of a URL with odd escapes', () => {
  const sentence = describeBrokerFailure(
    'amqp://us%zzer:secret@host/v%20h',
    new Error('Expected ConnectionOpenOk; got <ConnectionClose channel:0>'),
  );
  expect(sentence).toContain('virtual host "v h"');
  expect(sentence).not.toContain('secret');
});
