-- Sends balance updates with wrk: one a request, or many in one bulk request, to the accounts of a file in its order.
-- wrk -s wrk.lua URL -- <file of account ids> <updates a request> <idempotency key prefix, or - for none>
local ids, size, prefix = {}, 1, nil
local position, sent = 0, 0
local head, host, constant

function init(args)
  for line in io.lines(args[1]) do ids[#ids + 1] = line end
  size = tonumber(args[2])
  if args[3] ~= '-' then prefix = args[3] end
  math.randomseed(os.time())
  position = math.random(#ids) - 1
  head = 'POST ' .. (size == 1 and '/v1/balance-updates' or '/v1/balance-updates/bulk') .. ' HTTP/1.1\r\nHost: '
    .. wrk.host .. ':' .. wrk.port .. '\r\nContent-Type: application/json\r\n'
  if #ids == 1 and not prefix then constant = build() end
end

local function nextId()
  position = position % #ids + 1
  return ids[position]
end

local function nextKey()
  sent = sent + 1
  return prefix .. sent
end

function build()
  if size == 1 then
    local body = '{"accountId":"' .. nextId() .. '","amount":1}'
    local key = prefix and ('Idempotency-Key: ' .. nextKey() .. '\r\n') or ''
    return head .. key .. 'Content-Length: ' .. #body .. '\r\n\r\n' .. body
  end
  local updates = {}
  for i = 1, size do
    local key = prefix and (',"idempotencyKey":"' .. nextKey() .. '"') or ''
    updates[i] = '{"accountId":"' .. nextId() .. '","amount":1' .. key .. '}'
  end
  local body = '{"updates":[' .. table.concat(updates, ',') .. ']}'
  return head .. 'Content-Length: ' .. #body .. '\r\n\r\n' .. body
end

function request()
  return constant or build()
end

function done(summary, latency)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format(
    '\nRESULT {"answered":%d,"notOk":%d,"broken":%d,"seconds":%f,"p50Ms":%f,"p99Ms":%f,"maxMs":%f}\n',
    summary.requests, errors.status, broken, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
