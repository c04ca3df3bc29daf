"""The protocol of the cache, and the scripts that are its steps in Redis. Each is atomic, and one round trip.

**The promise.** A read that begins after a version of a row was acknowledged to anybody returns no older one, even if
Redis is slow, stopped, cut off, killed, restarted with old data or none, flushed, full or failed over.

**The lease.** One key holds a *generation* and the moment until which it lives. A reader believes an entry only if it
has the generation of a lease that is alive, which the script that reads the entry checks. The lane makes a new
generation whenever it is unsure about the last one; all older entries are void then. A generation begins with the
`run_id` of the Redis process that it was made for. So on a Redis that was restarted with its saved data, or on a
replica that was promoted, readers believe nothing until the lane has claimed a lease there.

**The lane** alone claims and extends the lease. After each commit it refreshes the entries of the changed rows, in
one script that does nothing unless the live lease is the lane's own. Only then it sends the outcomes.

- A lease may live until `REDIS_LEASE_S` after a moment when the lane's epoch was proved current, by a fenced commit or
  by reading it from the database (`LeaseProof`). So a lane that was taken over cannot keep its lease alive.
- When a refresh fails, or Redis cannot be reached, outcomes wait until no lease can be alive any more: until the
  deadline of the last attempt to extend it and, after a takeover, until `REDIS_LEASE_S` after it, because of the lane
  before. They stop waiting sooner if a new generation is claimed. From then on no outcome waits while Redis stays away.
- A lease can be claimed where entries cannot be written: for want of a right, for example. After a refresh has failed
  no lease is claimed before an entry has been written for trial (PROBE). Else each outcome would wait for a lease.
- Deadlines are absolute, on Redis's own clock: the time that it gave, plus the time that has passed here since its
  answer. A command that Redis executes late, because it was stopped or the network held it, finds its deadline over.
- Rows are written under a generation only when the epoch was proved after that generation was claimed. So a lane that
  was taken over between its commit and its refresh cannot bring an old version, or a removed row, back: the lease is
  another lane's or gone, and under a lease that it claims itself it must prove its epoch before it writes.

**A reader** that misses leaves a random *token* at the entry, in the same script. It then reads the database in a way
that sees every commit before the token (majority and linearizable, from the primary), and stores the row only if that
token is still there and its generation is alive. A refresh, a removal, a flush, an eviction and an expiry all take the
token away, and a new generation makes it void. So the row has not changed between the read and the fill. Readers that
miss at the same time share a token.

**The log** has outcomes before the lane sends them. A reader that finds one there waits until the lease shows its
sequence, or for the length of a lease (coordinator/cache/command_log.py).

**Assumed**: Redis's clock does not jump back, and runs no more than 1 % slower than the lane's monotonic clock, nor
after a failover 1 % faster; all coordinators of a lane have the same `REDIS_LEASE_S`; lane and readers use the same
Redis, or after a failover its replica; no other program writes these keys. Redis 5 or newer, not a cluster; where it
has ACLs, its user has the rights of coordinator/cache/rights.py.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol

# A generation begins with a run_id, which is hexadecimal, and goes on after a colon.
_COMMON: Final = """
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function server()
  return assert(string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'), 'INFO server names no run_id')
end
local function later(one, other)
  return tonumber(one) > tonumber(other) and one or other
end
local function alive(key)
  local lease = redis.call('HMGET', key, 'generation', 'until')
  if lease[1] and tonumber(lease[2]) > clock() and string.match(lease[1], '^%x+') == server() then return lease[1] end
  return false
end
"""

CLOCK: Final = (
    _COMMON
    + """
return {server(), clock()}
"""
)
"""() -> its run_id, the time in ms."""

CLAIM: Final = (
    _COMMON
    + """
local now, here = clock(), server()
if tonumber(ARGV[2]) <= now or string.match(ARGV[1], '^%x+') ~= here then return {0, now, 0} end
local found = redis.call('HMGET', KEYS[1], 'generation', 'elsewhere')
local elsewhere = later(ARGV[5], found[2] or '0')
if found[1] and string.match(found[1], '^%x+') ~= here then elsewhere = later(ARGV[4], elsewhere) end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'until', ARGV[2], 'sequence', ARGV[3], 'elsewhere', elsewhere)
redis.call('PEXPIREAT', KEYS[1], later(ARGV[2], elsewhere))
return {1, now, math.max(0, tonumber(elsewhere) - now)}
"""
)
"""(lease; generation, deadline in ms, the lane's sequence, a moment in ms until which a lease of the lane may be alive,
the same of a lease on another server that the caller knows of, or 0) -> whether it is claimed, the time in ms, for how
many ms a lease may be alive on another server. Any lease that was alive here is over.

The lease keeps that moment (`elsewhere`), for a lane that takes over while this one waits for it.
"""

REFRESH: Final = (
    _COMMON
    + """
if alive(KEYS[1]) ~= ARGV[1] then return {0, clock()} end
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], 'until')) then
  redis.call('HSET', KEYS[1], 'until', ARGV[2])
  redis.call('PEXPIREAT', KEYS[1], later(ARGV[2], redis.call('HGET', KEYS[1], 'elsewhere') or '0'))
end
local rows = tonumber(ARGV[5])
for gone = 2 + rows, #KEYS do redis.call('DEL', KEYS[gone]) end
for row = 1, rows do
  local key, version, text = KEYS[1 + row], ARGV[4 + 2 * row], ARGV[5 + 2 * row]
  local found = redis.pcall('HMGET', key, 'generation', 'version')
  if found[1] ~= ARGV[1] or not found[2] or tonumber(found[2]) < tonumber(version) then
    redis.call('DEL', key)
    redis.call('HSET', key, 'generation', ARGV[1], 'version', version, 'row', text)
    redis.call('EXPIRE', key, ARGV[4])
  end
end
redis.call('HSET', KEYS[1], 'sequence', ARGV[3])
return {1, clock()}
"""
)
"""(lease, a key for each row, a key for each removed row; generation, deadline in ms, the lane's sequence, seconds to
keep, number of rows, then version and text of each) -> whether the lease is still this one, so that all is done; the
time in ms. What was removed goes first: another row may be under its key, whose versions began anew.
"""

# A reader names the lease among its arguments. Of a key of the script Redis asks for the right to write it, whatever
# the script does, and a reader need not have that.
READ: Final = (
    _COMMON
    + """
local generation = alive(ARGV[1])
if not generation then return {} end
local found = redis.pcall('HMGET', KEYS[1], 'generation', 'row', 'token')
if found[1] == generation then
  if found[2] then return {generation, found[2]} end
  if found[3] then return {generation, false, found[3]} end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'generation', generation, 'token', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {generation, false, ARGV[2]}
"""
)
"""(key; lease, a new token, ms to keep it) -> nothing: there is no lease; or its generation and the row's text; or its
generation, nil and the token that is there now."""

FILL: Final = (
    _COMMON
    + """
if alive(ARGV[1]) ~= ARGV[2] then return 0 end
local found = redis.call('HMGET', KEYS[1], 'generation', 'token')
if found[1] ~= ARGV[2] or found[2] ~= ARGV[3] then return 0 end
redis.call('HDEL', KEYS[1], 'token')
redis.call('HSET', KEYS[1], 'version', ARGV[4], 'row', ARGV[5])
redis.call('EXPIRE', KEYS[1], ARGV[6])
return 1
"""
)
"""(key; lease, generation, token, version, text, seconds to keep) -> whether it is stored."""

PROBE: Final = """
for _, step in ipairs({
  {'DEL'}, {'HSET', 'generation', '', 'token', ARGV[1]}, {'HGET', 'token'}, {'HMGET', 'generation', 'token'},
  {'HDEL', 'token'}, {'EXPIRE', 1}, {'PEXPIRE', 1000}, {'PEXPIREAT', '4102444800000'}, {'DEL'},
}) do
  local command = table.remove(step, 1)
  local answer = redis.pcall(command, KEYS[1], unpack(step))
  if type(answer) == 'table' and answer.err then return {string.lower(command), answer.err} end
end
return {}
"""
"""(key of an entry; a text) -> nothing: all that is done with an entry can be done with this one, which is gone now, as
if it were evicted; or the command that fails, and Redis's own words."""

SHOWS: Final = (
    _COMMON
    + """
if not alive(ARGV[1]) then return 0 end
return tonumber(redis.call('HGET', ARGV[1], 'sequence')) >= tonumber(ARGV[2]) and 1 or 0
"""
)
"""(; lease, sequence) -> whether everything up to it is refreshed, or was void when the lease was claimed."""

OF_READERS: Final = frozenset({READ, FILL, SHOWS})
"""The scripts whose first argument is the key of the lease."""

Arguments = Sequence[str | bytes | int]


class CacheUnavailable(Exception):
    """Raised when Redis did not answer in time, or refused. The script may have run, or may yet run."""


class CacheRefused(CacheUnavailable):
    """Raised when Redis refuses the user, or what it asks: the same would be refused again.

    Anybody may read the text.
    """


def refusal(key: str, answer: Any) -> CacheRefused | None:
    """The error for what PROBE of this key has answered; None: it has failed at nothing."""
    if not answer:
        return None
    command, words = (part.decode(errors="replace") for part in answer)
    code = words.split(" ", 1)[0]
    why = f" ({code})" if code.isalpha() and code.isupper() and code != "ERR" else ""
    return CacheRefused(
        f"Redis refuses the command {command} with the key {key}{why} to the user of REDIS_URL: see docs/OPERATING.md"
    )


class Scripts(Protocol):
    """Runs scripts, for the lane."""

    def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        """The result of the script. Raises CacheUnavailable, within a bounded time."""

    def close(self) -> None:
        """Close the connection; the next run opens another."""


class AsyncScripts(Protocol):
    """Runs scripts, for readers."""

    async def run(self, script: str, keys: Sequence[str], arguments: Arguments) -> Any:
        """The result of the script. Raises CacheUnavailable, within a bounded time."""

    async def close(self) -> None:
        """Close the connections."""
