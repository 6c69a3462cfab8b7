// Every call under /v1. Express tries paths in this order, so the hot one is first.
import { accountCalls } from './account-calls.ts';
import { balanceUpdateCalls } from './balance-update-calls.ts';
import type { Call } from './call.ts';
import { historyCalls } from './history-calls.ts';
import { holdCalls } from './hold-calls.ts';
import { reversalCalls } from './reversal-calls.ts';
import { transferCalls } from './transfer-calls.ts';
import { verificationCalls } from './verification-calls.ts';

export const calls: readonly Call[] = [
  ...balanceUpdateCalls,
  ...transferCalls,
  ...reversalCalls,
  ...holdCalls,
  ...accountCalls,
  ...historyCalls,
  ...verificationCalls,
];
