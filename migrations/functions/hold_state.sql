-- A hold as apply_changes answers with it: JSON, times in milliseconds since 1970.
CREATE OR REPLACE FUNCTION hold_state(
  amount bigint, captured bigint, remaining bigint, status text, expires_at timestamptz, created_at timestamptz, updated_at timestamptz
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT concat(
    '{"amount":', amount, ',"captured":', captured, ',"remaining":', remaining, ',"status":"', status,
    '","expiresAt":', coalesce((extract(epoch FROM expires_at) * 1000)::bigint::text, 'null'),
    ',"createdAt":', (extract(epoch FROM created_at) * 1000)::bigint,
    ',"updatedAt":', (extract(epoch FROM updated_at) * 1000)::bigint, '}'
  )
$$;
