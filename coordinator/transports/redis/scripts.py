"""What the transport does in Redis: each script is atomic, and one round trip.

**Numbers.** Every entry of a lane's two streams has a number, which is its id (`N-0`). A counter beside the streams
gives them out without a gap. So a number tells how many entries came before it, and their order in both streams.

**Runs.** A Redis that comes back with an older file, or a replica that is promoted and lacks the tail, gives numbers
out again. So the counter also has the `run_id` of each process of Redis that has counted, and its first number: who
remembers a number, and in which run it was given out, sees whether that run kept it (`loss.py`). A script counts only
in the run that its caller has greeted; the run is the connection's, which no restart and no failover outlives.

**Jumps.** Where a foreign entry makes the next number follow its id, the counter notes which numbers were passed over.
So a consumer that misses one sees whether it was given out, and has been taken away (`missing.py`).

**The lease** names the consumer whose turn it is. It expires, so that a dead consumer's turn ends. One that waits for
its turn also ends that of a consumer which is gone or silent (`lane_lease.py`). Nothing is wrong if two consumers read
for a moment: only the fence of their database lets one of them commit.

An entry that somebody adds by hand may have any id, and its stream remembers that id when it is gone. The next number
is then above it, up to `NUMBER_MAX`. An entry above that and above the counter is a stranger's: a consumer moves it,
and has the stream forget its id (`ADOPT`).

**Without memory** (`maxmemory`) Redis refuses what adds to a key. `ADD` is refused then. What takes entries out, and
the lease that this needs, is not.
"""

import hashlib
from typing import Final

from msgspec import Struct

ENTRY_BYTES: Final = 64
"""What an entry is taken to have beside its two fields."""
RUNS_MAX: Final = 100
"""How many runs of Redis are remembered."""
JUMPS_MAX: Final = 100
"""How many jumps of a counter are remembered."""
NUMBER_MAX: Final = 1 << 51
"""The next number follows a foreign entry below this. Scripts count in floats, exact up to four times as much: so there
is room above it, whatever strangers add."""

NOT_GREETED: Final = -1
"""Of `ADD`: the counter has not been greeted in this run of Redis, or is not there."""
FULL: Final = -2
"""Of `ADD`: the streams have as many bytes as they may."""
UNUSABLE: Final = -3
"""Of `ADD`: the stream has or had a foreign entry with an id that no number follows; a consumer mends it."""


class Script(Struct, frozen=True):
    """A script, and the digest by which it is called."""

    text: str
    sha: str


def script(text: str, *, adds: bool = False) -> Script:
    """A script of this text. With `adds` it is refused by a Redis that has no memory left."""
    if not adds:
        text = f"#!lua flags=allow-oom{text}"
    return Script(text, hashlib.sha1(text.encode()).hexdigest())  # noqa: S324  # as Redis names scripts


LAST_ID: Final = """
local function last_id(key)
  local about = redis.pcall('XINFO', 'STREAM', key)
  if about.err then return 0 end
  for at = 1, #about, 2 do
    if about[at] == 'last-generated-id' then return tonumber(string.match(about[at + 1], '^%d+')) end
  end
end
"""
"""A function of scripts: the highest number that a stream ever had, which it remembers; 0: there is no stream."""

NOTE_JUMP: Final = f"""
local function note_jump(counter, first, next)
  local all = {{}}
  for each in string.gmatch(redis.call('HGET', counter, 'jumps') or '', '%S+') do table.insert(all, each) end
  table.insert(all, string.format('%.0f=%.0f', first, next))
  while #all > {JUMPS_MAX} do table.remove(all, 1) end
  redis.call('HSET', counter, 'jumps', table.concat(all, ' '))
end
"""
"""A function of scripts: the counter gives out none of the numbers from `first` on until `next`."""


GREET: Final = script(
    NOTE_JUMP
    + """
local run, makes = ARGV[1], ARGV[2] == '1'
local found = redis.call('HMGET', KEYS[1], 'run', 'last', 'runs')
if not found[1] and not makes then return {-1, ''} end
local last, runs = tonumber(found[2] or '0'), found[3] or ''
if found[1] ~= run then
  for at = 2, #KEYS do
    local top = redis.pcall('XREVRANGE', KEYS[at], '+', '-', 'COUNT', 1)
    if not top.err and top[1] then
      local number = tonumber(string.match(top[1][1], '^%d+'))
      if number > last and number < tonumber(ARGV[3]) then last = number end
    end
  end
  local counted = tonumber(found[2] or '0')
  if last > counted then note_jump(KEYS[1], counted + 1, last + 1) end
  local all = {}
  for each in string.gmatch(runs, '%S+') do table.insert(all, each) end
  table.insert(all, run .. '=' .. string.format('%.0f', last + 1))
  while #all > tonumber(ARGV[4]) do table.remove(all, 1) end
  runs = table.concat(all, ' ')
  redis.call('HSET', KEYS[1], 'run', run, 'last', string.format('%.0f', last), 'runs', runs)
end
return {last, runs}
"""
)
"""(counter, its streams; run, 1 to make it, the highest number, how many runs to keep) -> the last number, the runs as
`run=first` with spaces between them; or -1: there is no counter."""

ADD: Final = script(
    f"""{LAST_ID}{NOTE_JUMP}"""
    """
local found = redis.call('HMGET', KEYS[2], 'run', 'last', 'bytes')
if found[1] ~= ARGV[1] then return -1 end
local bytes = tonumber(found[3] or '0') + #ARGV[4] + #ARGV[5] + tonumber(ARGV[3])
if bytes > tonumber(ARGV[2]) then return -2 end
local number = tonumber(found[2]) + 1
local id = string.format('%.0f-0', number)
local function count(last, bytes)
  redis.call('HSET', KEYS[2], 'last', string.format('%.0f', last), 'bytes', string.format('%.0f', bytes))
end
count(number, bytes)
local added = redis.pcall('XADD', KEYS[1], id, 'head', ARGV[4], 'body', ARGV[5])
if type(added) == 'table' and added.err then
  local above = 0
  local is_passed = string.find(added.err, 'equal or smaller', 1, true)
  if is_passed then above = last_id(KEYS[1]) end
  if not is_passed or above < number or above >= tonumber(ARGV[6]) then
    count(number - 1, tonumber(found[3] or '0'))
    return is_passed and -3 or added
  end
  note_jump(KEYS[2], number, above + 1)
  number = above + 1
  redis.call('XADD', KEYS[1], string.format('%.0f-0', number), 'head', ARGV[4], 'body', ARGV[5])
  count(number, bytes)
end
return number
""",
    adds=True,
)
"""(stream, counter; run, bytes that the streams may have, what an entry has beside its fields, head, body, the highest
number) -> its number, or why it was not added. An error of Redis's is returned as it is, and nothing is added then: a
user who may not write to the counter is refused before."""

TAKE: Final = script(
    """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] and owner ~= ARGV[3] then return {0, owner, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local kept = redis.call('HMGET', KEYS[2], 'held', 'read', 'left', 'mark')
local held = redis.call('HINCRBY', KEYS[2], 'held', 1)
redis.call('HSET', KEYS[2], 'holder', ARGV[1])
redis.call('HDEL', KEYS[2], 'left')
local last = redis.call('HGET', KEYS[3], 'last') or '0'
local again = '0'
if kept[3] then again = kept[2] or '0' elseif kept[1] then again = last end
return {1, again, last, held, kept[2] or '0', kept[4]}
"""
)
"""(lease, kept, counter; token, ms, the token of a dead one) -> whether the caller has the lease now, or else whose it
is, and for how many ms; if so, up to which number entries may have been delivered before, the last number, the lease's
number, the highest number that a consumer had read when it last settled one, the mark."""

IS_OVER: Final = """
local function is_over(lease, kept, token, number)
  local owner = redis.call('GET', lease)
  if owner then return owner ~= token end
  local last = redis.call('HMGET', kept, 'held', 'holder')
  return last[1] ~= number or last[2] ~= token
end
"""
"""A function of scripts: whether the turn is another consumer's. A lease that is gone, since it was late, or Redis had
no memory left and took it away as a key that expires, is still its last holder's. The number alone does not say who
that is: a Redis that has lost everything counts turns anew. Nor does the token: an earlier release keeps none."""

RENEW: Final = script(
    IS_OVER
    + """
if is_over(KEYS[1], KEYS[2], ARGV[1], ARGV[3]) then return -1 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], 'unsettled', ARGV[4])
return 1
"""
)
"""(lease, kept; token, ms, the lease's number, how many entries it has) -> 1, or -1: the turn is another consumer's."""

RELEASE: Final = script(
    IS_OVER
    + """
if is_over(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[2], 'left', 1, 'read', ARGV[3])
return 1
"""
)
"""(lease, kept; token, the lease's number, up to which number entries were delivered) -> whether it is the caller's."""

SETTLE: Final = script(
    IS_OVER
    + """
if is_over(KEYS[3], KEYS[5], ARGV[1], ARGV[2]) then return 0 end
local gone = 0
for at = 1, 2 do
  local from = at == 1 and 6 or 6 + tonumber(ARGV[5])
  local to = at == 1 and 5 + tonumber(ARGV[5]) or #ARGV
  if to >= from then gone = gone + redis.call('XDEL', KEYS[at], unpack(ARGV, from, to)) end
end
local bytes = tonumber(redis.call('HGET', KEYS[4], 'bytes') or '0') - tonumber(ARGV[3])
if bytes < 0 or (redis.call('XLEN', KEYS[1]) == 0 and redis.call('XLEN', KEYS[2]) == 0) then bytes = 0 end
redis.call('HSET', KEYS[4], 'bytes', string.format('%.0f', bytes))
redis.call('HSET', KEYS[5], 'read', ARGV[4])
return 1
"""
)
"""(both streams, lease, counter, kept; token, the lease's number, bytes of the entries, up to which number entries were
delivered, how many of the ids are of the first stream, ids) -> whether it is the caller's: else nothing is done."""

KEEP: Final = script(
    IS_OVER
    + """
if is_over(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', KEYS[2], 'mark', ARGV[3])
return 1
"""
)
"""(lease, kept; token, the lease's number, mark) -> whether the lease is the caller's: else nothing is kept."""

ADOPT: Final = script(
    f"""{LAST_ID}{NOTE_JUMP}"""
    """
local may = redis.pcall('XADD', KEYS[2], 'NOMKSTREAM', '0-0', 'head', '')
if type(may) == 'table' and may.err and not string.find(may.err, '0-0', 1, true) then return may end
local counted = tonumber(redis.call('HGET', KEYS[1], 'last') or '0')
local last = math.max(counted, tonumber(ARGV[2]))
local from = math.max(tonumber(ARGV[1]), last + 1)
local waiting = 0
for at = 2, #KEYS do
  local found = redis.call('XRANGE', KEYS[at], string.format('%.0f-0', from), '+')
  for each = 1, #found do redis.call('XDEL', KEYS[at], found[each][1]) end
  local left = redis.call('XLEN', KEYS[at])
  if #found > 0 or last_id(KEYS[at]) >= from then
    local top = redis.call('XREVRANGE', KEYS[at], '+', '-', 'COUNT', 1)
    if top[1] then last = math.max(last, tonumber(string.match(top[1][1], '^%d+'))) end
    last = last + 1
    local lowered = redis.pcall('XSETID', KEYS[at], string.format('%.0f-0', last))
    if lowered.err then
      local kept = redis.call('XRANGE', KEYS[at], '-', '+')
      redis.call('DEL', KEYS[at])
      for each = 1, #kept do
        local fields = kept[each][2]
        redis.call('XADD', KEYS[at], kept[each][1], unpack(fields, 1, math.min(20, #fields)))
      end
    end
  end
  for each = 1, #found do
    last = last + 1
    local fields = found[each][2]
    redis.call('XADD', KEYS[at], string.format('%.0f-0', last), unpack(fields, 1, math.min(20, #fields)))
  end
  waiting = waiting + left + #found
end
if last > counted then
  redis.call('HSET', KEYS[1], 'last', string.format('%.0f', last))
  note_jump(KEYS[1], counted + 1, last + 1)
end
if waiting == 0 and (redis.call('HGET', KEYS[1], 'bytes') or '0') ~= '0' then
  redis.call('HSET', KEYS[1], 'bytes', 0)
end
return last
"""
)
"""(counter, its streams; the highest number, up to which number entries were delivered) -> the last number, once
foreign entries with higher ids have one, and the streams have forgotten the ids. Where nothing waits, it takes no room.

From Redis 7.2 on a stream takes no id below one that was deleted: it is written anew then. A user who may not add is
refused before anything is taken out."""

ALL: Final = (GREET, ADD, TAKE, RENEW, RELEASE, SETTLE, KEEP, ADOPT)
