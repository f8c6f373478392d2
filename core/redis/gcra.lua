-- Take one call from a rate limit (generic cell rate algorithm), or a place in its line.
--
-- KEYS[1] the limit's state: the time at which it will be full again ("theoretical arrival time")
-- KEYS[2] optional: the caller's place in the line
-- ARGV[1] now, ARGV[2] window, both in microseconds; ARGV[3] calls per window;
-- ARGV[4] how long after its time a place is kept, in milliseconds
--
-- Returns the microseconds until the call may be made; 0: it is taken now. A caller with a place gets the
-- time of its own place, each in the line a later one, so that a thousand waiting callers come one by one
-- instead of all at once; it asks again then, and only then is the place used up.
--
-- All numbers are whole and below 2^53, so they are exact as Lua's doubles.

local now, window, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

if KEYS[2] then
    local place = tonumber(redis.call('GET', KEYS[2]) or '')
    if place then
        if place > now then return place - now end
        redis.call('DEL', KEYS[2])
        return 0
    end
end

local interval = math.ceil(window / limit)
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '') or now, now) + interval
local wait = math.max(0, full - interval * limit - now)
if wait > 0 and not KEYS[2] then return wait end

redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
if wait > 0 then
    redis.call('SET', KEYS[2], string.format('%.0f', now + wait), 'PX', math.ceil(wait / 1000) + tonumber(ARGV[4]))
end
return wait
