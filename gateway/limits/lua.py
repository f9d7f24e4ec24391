"""The Lua scripts of `gateway.limits.redis_store`. Redis runs each as one step, between no others.

requests, tokens: sorted sets of visits by the millisecond they were counted at. costs: tokens of each visit, and their
`sum`. concurrent: slots by the millisecond at which their lease ends; a visit's are its name, and its name with #1, #2.
"""

# ARGV: step, visit, window ms, lease ms, limits of requests, tokens and slots (-1: none), tokens, how many slots, and
# the slots that were freed.
# Answers: refused (0 no, 1 requests, 2 tokens, 3 slots), then used, reset ms and wait ms of requests and of tokens, and
# the slots used.
COUNT = """
local requests, slots, tokens, costs = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local step, visit, window, lease = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local max_requests, max_tokens, max_slots = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local cost, slots_taken = tonumber(ARGV[8]), tonumber(ARGV[9])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function forget()
  redis.call('ZREMRANGEBYSCORE', requests, '-inf', now - window)
  redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
  local old = redis.call('ZRANGEBYSCORE', tokens, '-inf', now - window)
  for _, one in ipairs(old) do
    redis.call('HINCRBY', costs, 'sum', -(redis.call('HGET', costs, one) or 0))
    redis.call('HDEL', costs, one)
    redis.call('ZREM', tokens, one)
  end
end

local function reset(set)
  local newest = redis.call('ZREVRANGE', set, 0, 0, 'WITHSCORES')
  return newest[2] and newest[2] + window - now or 0
end

local function wait(set, surplus, cost_of)
  if surplus <= 0 then return 0 end
  local oldest = redis.call('ZRANGE', set, 0, 199, 'WITHSCORES')
  for i = 1, #oldest, 2 do
    surplus = surplus - cost_of(oldest[i])
    if surplus <= 0 then return oldest[i + 1] + window - now end
  end
  return #oldest == 400 and oldest[400] + window - now or window
end

for i = 10, #ARGV do redis.call('ZREM', slots, ARGV[i]) end
forget()
local used_requests = redis.call('ZCARD', requests)
local used_tokens = tonumber(redis.call('HGET', costs, 'sum') or 0)
local used_slots = redis.call('ZCARD', slots)
local more_requests, more_tokens, more_slots = 0, 0, 0
if step == 'enter' then more_requests, more_tokens, more_slots = 1, 1, slots_taken end
if step == 'take' then more_tokens = cost end
local function over(used, more, max)
  return max >= 0 and more > 0 and used + more - max or 0
end
local over_requests = over(used_requests, more_requests, max_requests)
local over_tokens = over(used_tokens, more_tokens, max_tokens)
local refused = 0
if over_requests > 0 then refused = 1
elseif over_tokens > 0 then refused = 2
elseif over(used_slots, more_slots, max_slots) > 0 then refused = 3 end

if refused == 0 and step == 'enter' then
  if max_requests >= 0 then
    redis.call('ZADD', requests, now, visit)
    redis.call('PEXPIRE', requests, window)
    used_requests = used_requests + 1
  end
  if max_slots >= 0 then
    redis.call('ZADD', slots, now + lease, visit)
    for i = 1, slots_taken - 1 do redis.call('ZADD', slots, now + lease, visit .. '#' .. i) end
    redis.call('PEXPIRE', slots, lease)
    used_slots = used_slots + slots_taken
  end
elseif refused == 0 and step == 'take' and max_tokens >= 0 then
  redis.call('ZADD', tokens, now, visit)
  redis.call('HSET', costs, visit, cost)
  used_tokens = redis.call('HINCRBY', costs, 'sum', cost)
  redis.call('PEXPIRE', tokens, window)
  redis.call('PEXPIRE', costs, window)
end
return {
  refused,
  used_requests, reset(requests), wait(requests, over_requests, function() return 1 end),
  used_tokens, reset(tokens), wait(tokens, over_tokens, function(one) return redis.call('HGET', costs, one) or 0 end),
  used_slots
}
"""

# ARGV: visit, tokens that it came to (-1: as taken), slots.
LEAVE = """
local slots, tokens, costs = KEYS[1], KEYS[2], KEYS[3]
local visit, cost = ARGV[1], tonumber(ARGV[2])
redis.call('ZREM', slots, visit)
for i = 1, tonumber(ARGV[3]) - 1 do redis.call('ZREM', slots, visit .. '#' .. i) end
if cost >= 0 and redis.call('HEXISTS', costs, visit) == 1 then
  redis.call('HINCRBY', costs, 'sum', cost - redis.call('HGET', costs, visit))
  redis.call('HSET', costs, visit, cost)
end
return 0
"""

# ARGV: lease ms, slots. Only of those that are there: one that was freed meanwhile must not come back.
RENEW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', now + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 0
"""
