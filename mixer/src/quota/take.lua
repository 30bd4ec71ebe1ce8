-- Asks a counter (window.rs does the same for counters in memory).
-- KEYS: counter, answers. ARGV: limit, kind (forever fixed aligned rolling), length ms, bucket ms, amount, best effort,
-- how much in all is welcome or -1, identity of the question or '', ms for which that is remembered.
-- Returns granted, remaining, ms until reset (-1: never).
local limit, kind, length, bucket = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local amount, best_effort, ahead, id = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7]), ARGV[8]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if id ~= '' then
  local known = redis.call('GET', KEYS[2])
  if known then return cjson.decode(known) end
end

-- Use by beginning of window or bucket; `last` and `granted` are of the last grant.
local used, first, newest, last, granted_last = 0, nil, nil, 0, 0
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local field, value = entries[i], tonumber(entries[i + 1])
  if field == 'last' then last = value
  elseif field == 'granted' then granted_last = value
  else
    local start = tonumber(field)
    if kind ~= 'forever' and start + length <= now then
      redis.call('HDEL', KEYS[1], field)
    else
      used = used + value
      if not first or start < first then first = start end
      if not newest or start > newest then newest = start end
    end
  end
end

local granted, left = 0, math.max(0, limit - used)
if amount < 0 then
  -- Gives back to the newest; what it does not hold is given back by the end of its window anyway.
  if newest then
    local value = tonumber(redis.call('HGET', KEYS[1], string.format('%.0f', newest)))
    local back = math.min(value, -amount)
    redis.call('HINCRBY', KEYS[1], string.format('%.0f', newest), string.format('%.0f', -back))
    redis.call('HSET', KEYS[1], 'granted', string.format('%.0f', math.max(0, granted_last + amount)))
    left = math.max(0, limit - used + back)
  end
elseif left >= amount then
  granted = amount
  if ahead >= 0 and amount > 0 then
    local gap = math.max(1, now - last)
    local foreseen = math.min(math.floor(granted_last * 1000 / gap), granted_last * 10)
    local most = math.max(math.min(foreseen, math.ceil(left / 2), ahead), amount)
    granted = math.floor(most / amount) * amount
  end
elseif best_effort then
  granted = left
end

if granted > 0 then
  local start = 0
  if kind == 'fixed' then start = newest or now
  elseif kind == 'aligned' then start = now - now % length
  elseif kind == 'rolling' then start = now - now % bucket end
  if not first then first = start end
  redis.call('HINCRBY', KEYS[1], string.format('%.0f', start), string.format('%.0f', granted))
  redis.call('HSET', KEYS[1], 'last', string.format('%.0f', now), 'granted', string.format('%.0f', granted))
  if kind ~= 'forever' then redis.call('PEXPIRE', KEYS[1], string.format('%.0f', length + bucket)) end
  left = left - granted
end

local reset = -1
if kind == 'aligned' then reset = length - now % length
elseif kind == 'rolling' and (granted > 0 or amount <= 0) then reset = length
elseif kind ~= 'forever' then reset = (first or now) + length - now end
local answer = { granted, left, reset }
if id ~= '' then redis.call('SET', KEYS[2], cjson.encode(answer), 'PX', ARGV[9]) end
return answer
