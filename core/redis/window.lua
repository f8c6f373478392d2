-- Take one call from a rate limit, or a place in its line: no window ever holds more calls than the limit.
--
-- KEYS[1] calls: list of the times of the last calls, at most `limit` of them, the oldest first
-- KEYS[2] line: sorted set of those who wait, by the order in which they came
-- KEYS[3] told: sorted set of the same, by the time at which each was told to ask again
-- ARGV[1] now, ARGV[2] the window, both in microseconds; ARGV[3] calls per window
-- ARGV[4] how long after its time a call is kept free for whoever was told it, ARGV[5] how long such a one
-- keeps its place in the order, both in microseconds; ARGV[6] optional: who asks
--
-- Returns the microseconds until the call may be made; 0: it is made now. Only calls that are made count.
-- Somebody who asks again at the time it was told gets its call, unless one ahead of it was late.
--
-- All numbers are whole and below 2^53, so they are exact as Lua's doubles.

local calls, line, told = KEYS[1], KEYS[2], KEYS[3]
local asked, window, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept_free, remembered, who = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local function text(number) return string.format('%.0f', number) end
local function milliseconds(microseconds) return text(math.ceil(microseconds / 1000)) end

-- Clocks differ: time never runs back behind the last call, whoever made it.
local now = math.max(asked, tonumber(redis.call('LINDEX', calls, -1) or '') or asked)

local absent = redis.call('ZRANGEBYSCORE', told, '-inf', '(' .. text(now - remembered), 'LIMIT', 0, 1000)
if #absent > 0 then
    redis.call('ZREM', told, unpack(absent))
    redis.call('ZREM', line, unpack(absent))
end

-- When a call may be made before which `others` go first, each as soon as it may.
local made = redis.call('LLEN', calls)
local function after(others)
    local time, index = now, made - limit + others % limit
    if index >= 0 then time = math.max(now, tonumber(redis.call('LINDEX', calls, index)) + window) end
    return time + math.floor(others / limit) * window
end

-- Those who were told a time that has just come go first, if they came earlier than this one.
local due = redis.call('ZCOUNT', told, text(now - kept_free), text(now))
local rank = who and redis.call('ZRANK', line, who)
local mine = rank and tonumber(redis.call('ZSCORE', told, who) or '')
if mine and mine <= now and mine >= now - kept_free then due = due - 1 end
local ahead = rank or redis.call('ZCARD', line)

if after(math.min(ahead, due)) <= now then
    if rank then
        redis.call('ZREM', told, who)
        redis.call('ZREM', line, who)
    end
    redis.call('RPUSH', calls, text(now))
    redis.call('LTRIM', calls, -limit, -1)
    redis.call('PEXPIRE', calls, milliseconds(now - asked + window))
    return 0
end

local time = after(ahead)
if who then
    if not rank then
        local last = redis.call('ZREVRANGE', line, 0, 0, 'WITHSCORES')[2]
        redis.call('ZADD', line, text((tonumber(last or '') or 0) + 1), who)
    end
    redis.call('ZADD', told, text(time), who)
    local latest = tonumber(redis.call('ZREVRANGE', told, 0, 0, 'WITHSCORES')[2])
    local lasts = milliseconds(latest - asked + remembered)
    redis.call('PEXPIRE', line, lasts)
    redis.call('PEXPIRE', told, lasts)
end
return time - asked
