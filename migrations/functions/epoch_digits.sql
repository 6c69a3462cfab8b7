-- An epoch in base 36, as it appears in the id of a change. One expression, which the planner
-- inlines: a loop costs ten times as much.
CREATE OR REPLACE FUNCTION epoch_digits(epoch bigint) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ltrim(
    substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 3656158440062976 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 101559956668416 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 2821109907456 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 78364164096 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 2176782336 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 60466176 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 1679616 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 46656 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 1296 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch / 36 % 36)::integer + 1, 1)
    || substr('0123456789abcdefghijklmnopqrstuvwxyz', (epoch % 36)::integer + 1, 1),
    '0'
  )
$$;
