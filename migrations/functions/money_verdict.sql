-- Why a change of a balance is declined; null: it is accepted. The only place where this is
-- decided.
--
--   amount    minor units, not 0: a credit is positive, a debit negative. Any bigint
--   balance   before it
--   floor     the lowest balance allowed: the held amount minus the overdraft limit
--   ceiling   the highest balance that a credit may leave
--
-- Differences instead of sums: a sum could overflow; balance, floor and ceiling are within +-(2^53 - 1).
-- Inlined by the planner wherever it is used, so it stays one expression and IMMUTABLE.
CREATE OR REPLACE FUNCTION money_verdict(amount bigint, balance bigint, floor bigint, ceiling bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN amount > 0 THEN
      CASE
        WHEN amount <= ceiling - balance THEN NULL
        WHEN amount <= 9007199254740991 - balance THEN 'max_balance_exceeded'
        ELSE 'balance_out_of_range'
      END
    WHEN amount >= floor - balance THEN NULL
    WHEN amount < -9007199254740991 - balance THEN 'balance_out_of_range'
    ELSE 'insufficient_funds'
  END
$$;
