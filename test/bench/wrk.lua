-- Sends operations with wrk: one a request, or many in one bulk request, to the accounts of a file in its order.
-- wrk -s wrk.lua URL -- <file of accounts> <operation> <operations a request> <idempotency key prefix, or - for none>
local lines, size, prefix, operation = {}, 1, nil, nil
local position, sent = 0, 0
local host, constant

-- So many requests after the hold, which is answered by then: 64 connections have one request each in flight.
local CAPTURED_AFTER = 1000
-- Never the first, which wrk makes to look at, and does not send.
local placed, captured = 0, 1

function init(args)
  for line in io.lines(args[1]) do lines[#lines + 1] = line end
  operation = args[2]
  size = tonumber(args[3])
  if args[4] ~= '-' then prefix = args[4] end
  math.randomseed(os.time())
  position = math.random(#lines) - 1
  host = '\r\nHost: ' .. wrk.host .. ':' .. wrk.port .. '\r\nContent-Type: application/json\r\n'
  if #lines == 1 and not prefix and operation == 'update' then constant = build() end
end

local function nextLine()
  position = position % #lines + 1
  return lines[position]
end

local function nextKey()
  sent = sent + 1
  return prefix .. sent
end

local function post(path, headers, body)
  return 'POST /v1/' .. path .. ' HTTP/1.1' .. host .. headers .. 'Content-Length: ' .. #body .. '\r\n\r\n' .. body
end

local function fields()
  local line = nextLine()
  if operation == 'update' then return '"accountId":"' .. line .. '","amount":1' end
  local from, to = line:match('^(%S+) (%S+)$')
  return '"from":"' .. from .. '","to":"' .. to .. '","amount":1'
end

-- All holds are of the first account, and each is captured in its turn.
local function holdOrCapture()
  local path = 'accounts/' .. lines[1] .. '/holds'
  if placed < captured + CAPTURED_AFTER then
    placed = placed + 1
    return post(path, '', '{"holdId":"' .. prefix .. placed .. '","amount":1}')
  end
  captured = captured + 1
  return post(path .. '/' .. prefix .. captured .. '/capture', '', '{}')
end

function build()
  if operation == 'hold' then return holdOrCapture() end
  local path = operation == 'update' and 'balance-updates' or 'transfers'
  if size == 1 then
    return post(path, prefix and ('Idempotency-Key: ' .. nextKey() .. '\r\n') or '', '{' .. fields() .. '}')
  end
  local items = {}
  for i = 1, size do
    local key = prefix and (',"idempotencyKey":"' .. nextKey() .. '"') or ''
    items[i] = '{' .. fields() .. key .. '}'
  end
  local list = operation == 'update' and 'updates' or 'transfers'
  return post(path .. '/bulk', '', '{"' .. list .. '":[' .. table.concat(items, ',') .. ']}')
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
