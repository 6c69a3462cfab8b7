import { expect, it } from 'vitest';
import { brokerAdvice, describeBrokerFailure } from '../../src/shared/broker-failure.ts';

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
