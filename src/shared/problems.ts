// The error catalogue: every refusal of the API, RFC 9457 problem documents with a stable `code`.
// Where several apply, the first in this list is the answer. docs/api.md describes each one for
// clients; a test keeps the two in sync.

export interface Problem {
  status: number;
  title: string;
  /** Seconds after which a retry makes sense. */
  retryAfterS?: number;
}

export const problems = {
  headers_too_large: { status: 431, title: 'The request headers are too large' },
  request_timeout: { status: 408, title: 'The request did not arrive in time' },
  misdirected: { status: 421, title: 'Without API keys, only requests to localhost are accepted' },
  cross_origin: { status: 403, title: 'Without API keys, requests from other web pages are refused' },
  unauthorized: { status: 401, title: 'This call needs an API key' },
  forbidden: { status: 403, title: 'This API key may not do that' },
  not_found: { status: 404, title: 'There is nothing at this path' },
  method_not_allowed: { status: 405, title: 'This path does not support this method' },
  rate_limited: { status: 429, title: 'This API key has exceeded its rate limit' },
  payload_too_large: { status: 413, title: 'The request body is too large' },
  unsupported_media_type: { status: 415, title: 'The request body must be application/json' },
  invalid_request: { status: 400, title: 'The request is not valid' },
  overloaded: { status: 503, title: 'The service is overloaded; nothing was changed', retryAfterS: 1 },
  unavailable: { status: 503, title: 'The database is not available', retryAfterS: 1 },
  idempotency_key_reused: { status: 422, title: 'This idempotency key was used for another request' },
  account_exists: { status: 409, title: 'The account exists with other values' },
  hold_exists: { status: 409, title: 'The hold exists and was placed by another request' },
  change_not_found: { status: 404, title: 'There is no such change' },
  transfer_not_found: { status: 404, title: 'There is no such transfer' },
  account_not_found: { status: 404, title: 'There is no such account' },
  account_closed: { status: 409, title: 'The account is closed' },
  overdraft_limit_too_low: { status: 409, title: 'The account is overdrawn by more than this limit' },
  account_not_empty: { status: 409, title: 'The account has a balance or active holds, so it cannot be closed' },
  account_frozen: { status: 409, title: 'The account is frozen' },
  asset_mismatch: { status: 400, title: 'The accounts count different assets' },
  hold_not_found: { status: 404, title: 'The account has no such hold' },
  hold_closed: { status: 409, title: 'The hold has already been captured or released' },
  hold_expired: { status: 409, title: 'The hold has expired' },
  not_reversible: { status: 409, title: 'This change cannot be reversed' },
  already_reversed: { status: 409, title: 'The change has already been fully reversed' },
  version_mismatch: { status: 409, title: 'The account has changed since that version' },
  hold_amount_exceeded: { status: 400, title: 'The amount exceeds what is left of the hold' },
  reversal_exceeds: { status: 400, title: 'The amount exceeds what is left of the change' },
  balance_out_of_range: { status: 400, title: 'The balance would be outside the range of +-(2^53 - 1)' },
  max_balance_exceeded: { status: 400, title: 'The balance would exceed the maximum balance of the account' },
  insufficient_funds: { status: 400, title: 'The balance does not cover this debit' },
  linked_failed: { status: 409, title: 'Another part of the request failed, so this one was not applied' },
  outcome_unknown: { status: 503, title: 'The update was sent, but it is not known whether it was applied' },
  internal: { status: 500, title: 'The service failed unexpectedly' },
} as const satisfies Record<string, Problem>;

export type ProblemCode = keyof typeof problems;
