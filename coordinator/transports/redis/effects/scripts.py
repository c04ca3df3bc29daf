"""What workers of effects do in Redis: each script is atomic, and one round trip.

Effects have no order, so a consumer group hands each out to one worker. A worker is a consumer of that group with a
name of its own, and a key that it renews: without it the worker is dead, and another claims what it had.

An effect that is put back is a member of a sorted set, with the moment in which it is due as its score: its head, a
line's end, and its body. No head has a line's end, since it is JSON text of ours.
"""

from typing import Final

from coordinator.transports.redis.scripts import LAST_ID, script

GROUP: Final = "workers"

PREPARE: Final = script(
    """
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
return 1
"""
)
"""(stream; group) -> 1, once there is such a group."""

SAY_ALIVE: Final = script(
    """
return redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
"""
)
"""(key of a worker; ms)."""

DONE: Final = script(
    """
redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, 3))
local gone = redis.call('XDEL', KEYS[1], unpack(ARGV, 3))
local bytes = tonumber(redis.call('HGET', KEYS[2], 'bytes') or '0')
if gone > 0 then bytes = math.max(0, bytes - tonumber(ARGV[2])) end
if redis.call('XLEN', KEYS[1]) == 0 and redis.call('ZCARD', KEYS[3]) == 0 then bytes = 0 end
redis.call('HSET', KEYS[2], 'bytes', string.format('%.0f', bytes))
return gone
"""
)
"""(stream, counter, later; group, bytes of the entries, ids): these need not come again."""

CLAIM: Final = script(
    """
local found = {}
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for at = 1, #consumer, 2 do about[consumer[at]] = consumer[at + 1] end
  local room = tonumber(ARGV[3]) - #found
  if about.name ~= ARGV[2] and redis.call('EXISTS', KEYS[2] .. about.name) == 0 then
    if about.pending > 0 and room > 0 then
      local ids = {}
      for _, each in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', room, about.name)) do
        table.insert(ids, each[1])
      end
      for _, entry in ipairs(redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(ids))) do
        if entry and entry[2] then table.insert(found, entry) end
      end
    elseif about.pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about.name)
    end
  end
end
return found
"""
)
"""(stream, what the keys of workers begin with; group, own name, how many) -> entries that dead workers had."""

PUT_BACK: Final = script(
    """
if redis.call('HGET', KEYS[2], 'run') ~= ARGV[1] then return -1 end
local bytes = tonumber(redis.call('HGET', KEYS[2], 'bytes') or '0') + #ARGV[5] + tonumber(ARGV[3])
if bytes > tonumber(ARGV[2]) then return -2 end
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[4])
if redis.call('ZADD', KEYS[1], string.format('%.0f', due), ARGV[5]) == 1 then
  redis.call('HSET', KEYS[2], 'bytes', string.format('%.0f', bytes))
end
return 1
""",
    adds=True,
)
"""(later, counter; run, bytes that there may be, what an entry has beside, ms, effect) -> 1, or as `ADD` why not."""

RETURN: Final = script(
    f"""{LAST_ID}"""
    """
if redis.call('HGET', KEYS[3], 'run') ~= ARGV[1] then return -1 end
local last = tonumber(redis.call('HGET', KEYS[3], 'last'))
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])
local is_empty = redis.call('XLEN', KEYS[2]) == 0
if is_empty or #due > 0 then
  local top = last_id(KEYS[2])
  if top > last and top >= tonumber(ARGV[3]) then
    if not is_empty then return 0 end
    redis.call('DEL', KEYS[2])
    return -1
  end
  last = math.max(last, top)
end
if #due == 0 then
  if is_empty and redis.call('ZCARD', KEYS[1]) == 0 and (redis.call('HGET', KEYS[3], 'bytes') or '0') ~= '0' then
    redis.call('HSET', KEYS[3], 'bytes', 0)
  end
  return 0
end
redis.call('ZREM', KEYS[1], '')
redis.call('HSET', KEYS[3], 'run', ARGV[1])
for _, effect in ipairs(due) do
  local at = string.find(effect, '\\n', 1, true) or #effect + 1
  last = last + 1
  local id = string.format('%.0f-0', last)
  redis.call('XADD', KEYS[2], id, 'head', string.sub(effect, 1, at - 1), 'body', string.sub(effect, at + 1))
  redis.call('ZREM', KEYS[1], effect)
end
redis.call('HSET', KEYS[3], 'last', string.format('%.0f', last))
return #due
"""
)
"""(later, stream, counter; run, how many, the highest number) -> how many were due, and are in the stream again; -1: it
is to be prepared again. The stream is removed once a foreign entry has left an id that no number follows. Where nothing
waits, it takes no room. A user who may not take them out is refused before any is added: each call would
add it again."""

ALL_OF_EFFECTS: Final = (PREPARE, SAY_ALIVE, DONE, CLAIM, PUT_BACK, RETURN)
