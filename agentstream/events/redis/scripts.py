"""The scripts that change a log: each is one step that no other process sees half of.

The keys of a log L, of which the braces make one slot of a cluster; W is a run's id:

    agentstream:{L}:log      hash    id, version, position and first (of the log), bytes, runs
    agentstream:{L}:all      stream  an entry a commit, its id <last position>-0: "@" the server's
                                     time, "#" bytes, and for each stretch of events of one run
                                     "<offset>:<count>:<author>:<W>"
    agentstream:{L}:run:W    stream  an entry an event, its id <offset>-<position>: t, s, d
    agentstream:{L}:state:W  hash    who has the run, how far it is, what it needs to be resumed
    agentstream:{L}:keep:W   hash    a root's records
    agentstream:{L}:inner:W  set     the runs within a root that have not ended
    agentstream:{L}:runs, :active, :resting, :ended      zsets of runs, by their number
    agentstream:{L}:over     zset    roots whose records go at that time
    agentstream:{L}:due:N    zset    queued runs of workflow N that nobody has, by when they are due
    agentstream:{L}:owners   hash    owner -> "<beat> <lease>"
    agentstream:{L}:ends:O   hash    runs that owner O has taken to end them -> why they stop
    agentstream:{L}:stops    stream  w, r: requests to stop a run, the newest thousand or so

A script gets the first key and the log's id; where the id is another, it answers "gone".
"""

from __future__ import annotations

import hashlib

__all__ = ["APPEND", "BEAT", "CLAIM", "LEAVE", "OPEN", "TRIM", "Script"]


class Script:
    """A script, and the name by which the server knows it.

    Args:
        body: Lua, behind `_PRELUDE`.
        oom: true for one that runs though the server's memory is full.
    """

    def __init__(self, body: str, *, oom: bool = False) -> None:
        head = "#!lua flags=allow-oom\n" if oom else "#!lua\n"
        self.text = (head + _PRELUDE + body).encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest().encode()


_PRELUDE = """
local L, P = KEYS[1], string.sub(KEYS[1], 1, -5)
local call = redis.call
-- First of all: a script that fails half-way, for want of a permission, has done the first half.
local T = call('TIME')
local NOW = T[1] .. '.' .. string.format('%06d', T[2])
local function S(w) return P .. ':state:' .. w end
local function is_active(st) return st == 'queued' or st == 'running' end
local function is_resting(st) return st == 'interrupted' or st == 'suspended' end
local function is_gone() return call('HGET', L, 'id') ~= ARGV[1] end
local function beat_once(owner, beat)
  if owner ~= '' then call('HSETNX', P .. ':owners', owner, beat) end
end

-- Of a run that was queued: it is due then, and nobody has been told so yet; nil for never.
local function set_due(w, at)
  local name = call('HGET', S(w), 'job')
  if not name then return end
  if at then
    call('HSET', S(w), 'calls', 0)
    call('ZADD', P .. ':due:' .. name, at, w)
  else
    call('ZREM', P .. ':due:' .. name, w)
  end
end

-- Nobody has a run any more.
local function rest(w, status)
  local f = call('HMGET', S(w), 'owner', 'last', 'no', 'root')
  call('HSET', S(w), 'status', status, 'owner', '', 'prev', f[1] or '', 'prevlast', f[2] or '0')
  call('ZREM', P .. ':active', w)
  set_due(w, NOW)
  if not f[4] then call('ZADD', P .. ':resting', f[3], w) end
end

-- ... nor the runs within it.
local function rest_all(w, status)
  rest(w, status)
  for _, name in ipairs(call('SMEMBERS', P .. ':inner:' .. w)) do
    if is_active(call('HGET', S(name), 'status')) then rest(name, status) end
  end
end

-- A run has ended: its records go, and the runs within it are closed but for those of `alive`.
local function finish(w, alive)
  local f = call('HMGET', S(w), 'root', 'fence', 'keep', 'no', 'owner')
  call('HDEL', S(w), 'stop')
  if f[5] and f[5] ~= '' then call('HDEL', P .. ':ends:' .. f[5], w) end
  call('ZREM', P .. ':active', w)
  call('ZREM', P .. ':resting', w)
  set_due(w, nil)
  call('ZADD', P .. ':ended', f[4] or 0, w)
  if not f[2] then return end
  if f[1] then
    call('SREM', P .. ':inner:' .. f[1], w)
    return
  end
  for _, name in ipairs(call('SMEMBERS', P .. ':inner:' .. w)) do
    local status = call('HGET', S(name), 'status')
    if not alive[name] and (is_active(status) or is_resting(status)) then
      call('HSET', S(name), 'status', 'closed')
      call('HDEL', S(name), 'stop')
      call('ZREM', P .. ':active', name)
      call('ZADD', P .. ':ended', call('HGET', S(name), 'no') or 0, name)
    end
  end
  call('DEL', P .. ':inner:' .. w)
  call('HSET', S(w), 'over', NOW)
  if f[3] and f[3] ~= '' then
    call('ZADD', P .. ':over', NOW + f[3], w)
  else
    call('DEL', P .. ':keep:' .. w)
  end
end

local function close_run(w)
  call('HSET', S(w), 'status', 'closed')
  finish(w, {})
end

-- A run and those within it become `me`'s; returns {name, last, ...} of the latter.
local function take(w, me)
  local names, inner = {w}, {}
  for _, name in ipairs(call('SMEMBERS', P .. ':inner:' .. w)) do
    local f = call('HMGET', S(name), 'status', 'last')
    if is_active(f[1]) or is_resting(f[1]) then
      names[#names + 1] = name
      inner[#inner + 1] = name
      inner[#inner + 1] = f[2]
    end
  end
  for _, name in ipairs(names) do
    local f = call('HMGET', S(name), 'no', 'owner', 'last')
    if f[2] and f[2] ~= '' then call('HSET', S(name), 'prev', f[2], 'prevlast', f[3]) end
    local status = f[3] == '0' and 'queued' or 'running'
    call('HSET', S(name), 'status', status, 'owner', me, 'seq', '0')
    call('ZREM', P .. ':resting', name)
    set_due(name, nil)
    call('ZADD', P .. ':active', f[1], name)
  end
  return inner
end
"""

#: id, version -> id, version, position: a log is made where there is none.
OPEN = Script("""
if call('EXISTS', L) == 0 then
  call('HSET', L, 'id', ARGV[1], 'version', ARGV[2], 'position', 0, 'first', 1)
end
return call('HMGET', L, 'id', 'version', 'position')
""")

#: id, owner, beat, run, parent -> what came of it.
CLAIM = Script("""
if is_gone() then return {'gone'} end
local me, w = ARGV[2], ARGV[4]
local f = call('HMGET', S(w), 'owner', 'last', 'status')
if f[3] then
  if is_active(f[3]) and f[1] ~= me and f[1] ~= '' then return {'other'} end
  if not is_active(f[3]) or f[2] ~= '0' or f[1] == '' then return {'has'} end
end
beat_once(me, ARGV[3])
if f[3] then
  call('HSET', S(w), 'owner', me)
  return {'ok'}
end
local no = call('HINCRBY', L, 'runs', 1)
call('HSET', S(w), 'no', no, 'status', 'queued', 'owner', me, 'last', 0)
if ARGV[5] ~= '' then call('HSET', S(w), 'parent', ARGV[5]) end
call('ZADD', P .. ':runs', no, w)
call('ZADD', P .. ':active', no, w)
return {'ok'}
""")

#: id, owner, the highest position known, how many items, then the items.  An item is
#:   e run parent author fence first count {type time data note} ...   events of one run
#:   b run fence seq root recover keep                                it can be resumed
#:   w run fence seq discards {start} records {key there value}       records
#:   r run fence seq why                                              it cannot be resumed
#: Answers the positions before and after, of each item the run's last offset or why not, and
#: the requests to stop these runs.  Done twice, it changes nothing the second time.
APPEND = Script("""
if is_gone() then return {'gone'} end
local me = ARGV[2]
local pos = tonumber(call('HGET', L, 'position'))
if tonumber(ARGV[3]) > pos then pos = tonumber(ARGV[3]) end
local start, bytes = pos, 0
local refs, results, runs, stops = {}, {}, {}, {}

local function load(w)
  local r = runs[w]
  if r == nil then
    local f = call('HMGET', S(w), 'owner', 'status', 'last', 'fence', 'prev', 'prevlast', 'stop',
                   'seq', 'root', 'refused')
    r = {owner = f[1], status = f[2], last = tonumber(f[3] or 0), fence = f[4], prev = f[5],
         prevlast = tonumber(f[6] or 0), seq = tonumber(f[8] or 0), root = f[9], refused = f[10]}
    runs[w] = r
    if f[7] then stops[#stops + 1] = w; stops[#stops + 1] = f[7] end
  end
  return r
end

local function save(w, r)
  if r.dirty then call('HSET', S(w), 'last', r.last); r.dirty = false end
end

-- Why this process may not write a run; nil if it may.
local function barred(w, r, fence)
  if not r.owner then return {'lost'} end
  if is_resting(r.status) then return {'left', r.status} end
  if not is_active(r.status) then return {'ended', r.status} end
  if r.owner ~= me then return {'taken'} end
  if fence ~= '' and r.fence and r.fence ~= fence then
    if tonumber(fence) < tonumber(r.fence) then return {'taken'} end
    r.fence = fence  -- it was taken by this process, which a failover has lost
    call('HSET', S(w), 'fence', fence)
  end
  return nil
end

-- It was done before, and the answer was lost on its way.
local function is_done(r, last)
  return last <= r.last and (r.owner == me or (r.prev == me and last <= r.prevlast))
end

-- What an event says of its run as a whole.
local function note(w, r, text)
  for name, one in pairs(runs) do save(name, one) end
  local n = cjson.decode(text)
  if n.name then
    call('HSET', S(w), 'status', 'running', 'name', n.name)
    if n.started then call('HSET', S(w), 'started', n.started) end
    if n.input then call('HSET', S(w), 'input', n.input) end
    r.status = 'running'
  end
  if n.usage then call('HSET', S(w), 'usage', n.usage) end
  if n.status then
    call('HSET', S(w), 'status', n.status, 'ended', n.ended)
    r.status = n.status
    local alive = {}
    for _, name in ipairs(n.alive or {}) do alive[name] = true end
    finish(w, alive)
    runs = {}
  elseif n.rest then
    rest_all(w, n.rest)
    runs = {}
  end
end

local function make(w, parent)
  local no = call('HINCRBY', L, 'runs', 1)
  call('HSET', S(w), 'no', no, 'status', 'queued', 'owner', me, 'last', 0)
  if parent ~= '' then call('HSET', S(w), 'parent', parent) end
  call('ZADD', P .. ':runs', no, w)
  call('ZADD', P .. ':active', no, w)
  runs[w] = nil
  return load(w)
end

local function events(i)
  local w, parent, author, fence = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local first, count = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  local at, last = i + 6, first + count - 1
  local after = at + 4 * count
  local r = load(w)
  if not r.owner and first == 1 then r = make(w, parent) end  -- a failover has lost the claim
  if is_done(r, last) then return after, r.last end
  local why = barred(w, r, fence)
  if why then return after, why end
  if first > r.last + 1 then return after, {'gap', r.last} end
  local from, key = r.last + 1, P .. ':run:' .. w
  at = at + 4 * (from - first)
  for n = from, last do
    pos = pos + 1
    call('XADD', key, n .. '-' .. pos, 't', ARGV[at], 's', ARGV[at + 1], 'd', ARGV[at + 2])
    bytes = bytes + #ARGV[at + 2]
    r.last, r.dirty = n, true
    if ARGV[at + 3] ~= '' then note(w, r, ARGV[at + 3]) end
    at = at + 4
  end
  refs[#refs + 1] = from .. ':' .. (last - from + 1) .. ':' .. author .. ':' .. w
  return after, last
end

-- The root whose records an operation changes, or why it may not.
local function own_root(w, r, fence)
  local why = barred(w, r, fence)
  if why then return why end
  if not r.fence then return {'none'} end
  if r.root then return {'within'} end
  return nil
end

local function begin(i)
  local w, fence, seq, root = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local r = load(w)
  local why = barred(w, r, fence)
  if not why and root ~= '' then
    local outer = load(root)
    why = barred(root, outer, fence)
    if not why and not outer.fence then why = {'none'} end
  end
  if why then return i + 6, why end
  if not r.fence then
    r.fence, r.seq = fence, tonumber(seq)
    call('HSET', S(w), 'fence', fence, 'seq', seq, 'deaths', 0, 'recover', ARGV[i + 4],
         'keep', ARGV[i + 5])
    if root ~= '' then
      r.root = root
      call('HSET', S(w), 'root', root)
      call('SADD', P .. ':inner:' .. root, w)
    end
  end
  return i + 6, r.last
end

local function discard(key, starts)
  local gone = {}
  for _, name in ipairs(call('HKEYS', key)) do
    for _, s in ipairs(starts) do
      if string.sub(name, 1, #s) == s then gone[#gone + 1] = name; break end
    end
  end
  for _, name in ipairs(gone) do call('HDEL', key, name) end
end

local function write(i)
  local w, fence, seq, n = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local starts, r, key = {}, load(w), P .. ':keep:' .. ARGV[i]
  for k = 1, n do starts[k] = ARGV[i + 3 + k] end
  local at = i + 4 + n
  local count = tonumber(ARGV[at])
  local after = at + 1 + 3 * count
  if r.owner == me and seq <= r.seq then return after, r.last end
  local why = own_root(w, r, fence)
  if why then return after, why end
  r.seq = seq
  call('HSET', S(w), 'seq', seq)
  if r.refused then return after, r.last end
  if n > 0 then discard(key, starts) end
  for k = 0, count - 1 do
    local name = ARGV[at + 1 + 3 * k]
    if ARGV[at + 2 + 3 * k] == '1' then
      call('HSET', key, name, ARGV[at + 3 + 3 * k])
    else
      call('HDEL', key, name)
    end
  end
  return after, r.last
end

local function refuse(i)
  local w, fence, seq = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local r = load(w)
  local why = own_root(w, r, fence)
  if why then return i + 4, why end
  r.seq, r.refused = seq, ARGV[i + 3]
  call('HSET', S(w), 'seq', seq, 'refused', ARGV[i + 3])
  call('DEL', P .. ':keep:' .. w)
  return i + 4, r.last
end

local act = {e = events, b = begin, w = write, r = refuse}
local i = 5
for n = 1, tonumber(ARGV[4]) do
  i, results[n] = act[ARGV[i]](i + 1)
end
for w, r in pairs(runs) do save(w, r) end
if pos > start then
  call('HSET', L, 'position', pos)
  call('HINCRBY', L, 'bytes', bytes + 80 * (pos - start))
  local fields = {'@', NOW, '#', bytes + 80 * (pos - start)}
  for n, ref in ipairs(refs) do
    fields[#fields + 1] = n
    fields[#fields + 1] = ref
  end
  call('XADD', P .. ':all', pos .. '-0', unpack(fields))
end
return {start, pos, results, stops}
""")

#: id, owner, beat, runs ... -> the owners and their beats, requests to stop these runs, and
#: those of them that are another's by now.
BEAT = Script(
    """
if is_gone() then return {'gone'} end
if ARGV[2] ~= '' then call('HSET', P .. ':owners', ARGV[2], ARGV[3]) end
local stops, lost = {}, {}
for i = 4, #ARGV do
  local f = call('HMGET', S(ARGV[i]), 'stop', 'owner', 'status')
  if f[2] ~= ARGV[2] or not is_active(f[3]) then
    lost[#lost + 1] = ARGV[i]
  elseif f[1] then
    stops[#stops + 1] = ARGV[i]
    stops[#stops + 1] = f[1]
  end
end
return {call('HGETALL', P .. ':owners'), stops, lost}
""",
    oom=True,
)

#: id, owner: it goes; its runs that can be resumed are interrupted, the others closed.
LEAVE = Script(
    """
if is_gone() then return {'gone'} end
local me, left = ARGV[2], {}
for _, w in ipairs(call('ZRANGE', P .. ':active', 0, -1)) do
  local f = call('HMGET', S(w), 'owner', 'fence', 'root', 'refused')
  if f[1] == me and f[2] and not f[3] and not f[4] then rest_all(w, 'interrupted') end
end
for _, w in ipairs(call('ZRANGE', P .. ':active', 0, -1)) do
  if call('HGET', S(w), 'owner') == me then close_run(w) end
end
call('DEL', P .. ':ends:' .. me)
call('HDEL', P .. ':owners', me)
return {'ok'}
""",
    oom=True,
)

#: id, events, seconds and bytes to keep ("" for all), ended runs to list -> "more" or "done".
TRIM = Script(
    """
if is_gone() then return {'gone'} end
local f = call('HMGET', L, 'first', 'position', 'bytes')
local first, last, bytes = tonumber(f[1]), tonumber(f[2]), tonumber(f[3] or 0)
local most, age, room = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = tonumber(NOW)
local cut, ends, more, events = {}, nil, false, 0
for _, entry in ipairs(call('XRANGE', P .. ':all', '-', '+', 'COUNT', 500)) do
  local at = tonumber(string.match(entry[1], '^%d+'))
  local d = entry[2]
  local go = (most and at <= last - most) or (age and tonumber(d[2]) < now - age)
             or (room and bytes > room)
  if not go then more = false; break end
  if events > 5000 then more = true; break end
  more = true
  bytes = bytes - tonumber(d[4])
  for i = 6, #d, 2 do
    local o, n, w = string.match(d[i], '^(%d+):(%d+):[^:]*:(.*)$')
    cut[w] = tonumber(o) + tonumber(n)
    events = events + tonumber(n)
  end
  ends = at
end
if ends then
  call('HSET', L, 'first', ends + 1, 'bytes', bytes)
  for w, offset in pairs(cut) do
    call('XTRIM', P .. ':run:' .. w, 'MINID', offset .. '-0')
    if call('XLEN', P .. ':run:' .. w) == 0 then
      call('DEL', P .. ':run:' .. w)
      call('HDEL', S(w), 'input')
    end
  end
  call('XTRIM', P .. ':all', 'MINID', (ends + 1) .. '-0')
end
for _, w in ipairs(call('ZRANGEBYSCORE', P .. ':over', '-inf', now, 'LIMIT', 0, 100)) do
  call('DEL', P .. ':keep:' .. w)
  call('ZREM', P .. ':over', w)
end
local over = call('ZCARD', P .. ':ended') - tonumber(ARGV[5])
if over > 0 then
  for _, w in ipairs(call('ZRANGE', P .. ':ended', 0, math.min(over, 100) - 1)) do
    if call('EXISTS', P .. ':run:' .. w) == 0 then
      call('DEL', S(w), P .. ':keep:' .. w)
      call('ZREM', P .. ':ended', w)
      call('ZREM', P .. ':runs', w)
      call('ZREM', P .. ':over', w)
    end
  end
end
return {more and 'more' or 'done'}
""",
    oom=True,
)
