"""The scripts by which a run changes hands: taken, left, stopped, answered."""

from __future__ import annotations

from agentstream.events.redis.scripts import Script

__all__ = ["ABANDON", "ANSWER", "CLOSE", "DUE", "FORWARD", "QUEUE", "SEIZE", "STOP", "TAKE"]

#: id, owner, beat, run, whether the run is under way here -> how far it is, or why not.
TAKE = Script("""
if is_gone() then return {'gone'} end
local me, w = ARGV[2], ARGV[4]
local f = call('HMGET', S(w), 'status', 'owner', 'fence', 'root', 'refused', 'over', 'last',
               'deaths', 'recover')
local status, deaths = f[1], tonumber(f[8] or 0)
if not status then return {'unknown'} end
if f[4] then return {'within', f[4]} end
if is_active(status) and (status ~= 'queued' or f[2] ~= '') then
  if f[2] == me then
    local is_ending = call('HEXISTS', P .. ':ends:' .. me, w) == 1
    if ARGV[5] == '1' or not f[3] or is_ending then return {'busy', 'here'} end
    rest_all(w, 'interrupted')  -- an earlier call took it, and was broken off
  elseif f[2] ~= '' and call('HEXISTS', P .. ':owners', f[2]) == 1 then
    return {'busy', 'in another process'}
  elseif f[3] and not f[5] and deaths < tonumber(f[9] or 0) then
    deaths = deaths + 1
    call('HSET', S(w), 'deaths', deaths)
    rest_all(w, 'interrupted')
  else
    return {'busy', 'of a process that has died'}  -- it is ended by whoever reaps
  end
  status = 'interrupted'
end
if not is_resting(status) and status ~= 'queued' then return {'ended', status} end
if not f[3] then return {'none'} end
if f[5] then return {'refused', f[5]} end
beat_once(me, ARGV[3])
local inner = take(w, me)
local fence = call('HINCRBY', S(w), 'fence', 1)
for i = 1, #inner, 2 do call('HSET', S(inner[i]), 'fence', fence) end
return {'ok', f[7], fence, deaths, status, call('HGETALL', P .. ':keep:' .. w), inner}
""")

#: id, owner, beat, who died ("" for nobody), its last beat -> the runs that this owner is to
#: end, each with the reason of a request to stop it ("" for none), and those that rest by now
#: though they were to stop, likewise.
SEIZE = Script(
    """
if is_gone() then return {'gone'} end
local me, dead, mine, rests = ARGV[2], ARGV[4], P .. ':ends:' .. ARGV[2], {}
if dead == '' or call('HGET', P .. ':owners', dead) ~= ARGV[5] then
  return {call('HGETALL', mine), {}}
end
beat_once(me, ARGV[3])
local active = call('ZRANGE', P .. ':active', 0, -1)
for _, w in ipairs(active) do
  local f = call('HMGET', S(w), 'owner', 'fence', 'root', 'refused', 'deaths', 'recover', 'stop')
  if f[1] == dead and f[2] and not f[3] and not f[4] and tonumber(f[5]) < tonumber(f[6]) then
    call('HINCRBY', S(w), 'deaths', 1)
    rest_all(w, 'interrupted')
    if f[7] then rests[#rests + 1] = w; rests[#rests + 1] = f[7] end
  end
end
for _, w in ipairs(active) do
  local f = call('HMGET', S(w), 'owner', 'last', 'stop')
  if f[1] == dead then
    call('HSET', S(w), 'owner', me, 'prev', dead, 'prevlast', f[2])
    call('HSET', mine, w, f[3] or '')
  end
end
call('DEL', P .. ':ends:' .. dead)
call('HDEL', P .. ':owners', dead)
return {call('HGETALL', mine), rests}
""",
    oom=True,
)

#: id, owner, beat, run, reason -> "no", "asked", or "mine" and the runs to end as cancelled.
STOP = Script(
    """
if is_gone() then return {'gone'} end
local me, w = ARGV[2], ARGV[4]
local f = call('HMGET', S(w), 'status', 'owner', 'root')
if not f[1] then return {'no'} end
local root, ends, names = f[3] or w, P .. ':ends:' .. me, {'mine'}
if is_active(f[1]) and f[2] == me and call('HEXISTS', ends, w) == 1 then
  -- The same call, sent again as the answer to it was lost.
  for _, name in ipairs(call('HKEYS', ends)) do
    if call('HGET', S(name), 'root') == root then names[#names + 1] = name end
  end
  names[#names + 1] = root
  return names
end
if is_active(f[1]) and f[2] ~= '' then
  call('HSET', S(w), 'stop', ARGV[5])
  call('XADD', P .. ':stops', 'MAXLEN', '~', 1000, '*', 'w', w, 'r', ARGV[5])
  return {'asked'}
end
if not (is_active(f[1]) or is_resting(f[1])) then return {'no'} end
local g = call('HMGET', S(root), 'status', 'owner')
if not is_resting(g[1]) and not (is_active(g[1]) and g[2] == '') then return {'no'} end
beat_once(me, ARGV[3])
local inner = take(root, me)
for i = 1, #inner, 2 do names[#names + 1] = inner[i] end
names[#names + 1] = root
for i = 2, #names do
  call('HSET', S(names[i]), 'stop', ARGV[5])
  call('HSET', ends, names[i], ARGV[5])
end
return names
""",
    oom=True,
)

#: id, owner, run: nothing more will come of it.
CLOSE = Script(
    """
if is_gone() then return {'gone'} end
if call('HGET', S(ARGV[3]), 'owner') == ARGV[2] then close_run(ARGV[3]) end
return {'ok'}
""",
    oom=True,
)

#: id, owner, run: its owner lives and cannot go on with it: it is left as if that had died.
ABANDON = Script(
    """
if is_gone() then return {'gone'} end
local me, w = ARGV[2], ARGV[3]
local f = call('HMGET', S(w), 'owner', 'status', 'fence', 'root', 'refused', 'deaths', 'recover')
if f[1] ~= me or not is_active(f[2]) then return {'no'} end
if f[3] and not f[4] and not f[5] and tonumber(f[6]) < tonumber(f[7]) then
  call('HINCRBY', S(w), 'deaths', 1)
  rest_all(w, 'interrupted')
else
  call('HSET', P .. ':ends:' .. me, w, call('HGET', S(w), 'stop') or '')
end
return {'ok'}
""",
    oom=True,
)

#: id, run, key, value, the call's own name -> "ok", "again", or why not.
ANSWER = Script("""
if is_gone() then return {'gone'} end
local w = call('HGET', S(ARGV[2]), 'root') or ARGV[2]
local f = call('HMGET', S(w), 'status', 'fence', 'over', 'refused')
if not f[1] then return {'unknown'} end
if f[3] or not (is_active(f[1]) or is_resting(f[1])) then return {'ended', f[1]} end
if not f[2] then return {'none'} end
if f[4] then return {'refused', f[4]} end
if call('HSETNX', P .. ':keep:' .. w, ARGV[3], ARGV[4]) == 1 then
  call('HSET', S(w), 'answered', ARGV[5])
  if f[1] == 'suspended' then set_due(w, NOW) end
  return {'ok'}
end
-- The same call, sent again as the answer to it was lost.
if call('HGET', S(w), 'answered') == ARGV[5] then return {'ok'} end
return {'again'}
""")

#: id, run, workflow's name, the call's own name, seconds until it is due, recover, keep,
#: "=" and the input or "", records {key value} -> "ok", or "has": there is such a run.
QUEUE = Script("""
if is_gone() then return {'gone'} end
local w, name = ARGV[2], ARGV[3]
local f = call('HMGET', S(w), 'status', 'queued')
-- The same call, sent again as the answer to it was lost.
if f[1] then return {f[2] == ARGV[4] and 'ok' or 'has'} end
local no, wait = call('HINCRBY', L, 'runs', 1), tonumber(ARGV[5])
call('HSET', S(w), 'no', no, 'status', 'queued', 'owner', '', 'last', 0, 'name', name,
     'job', name, 'queued', ARGV[4], 'fence', 0, 'seq', 0, 'deaths', 0, 'recover', ARGV[6],
     'keep', ARGV[7])
if ARGV[8] ~= '' then call('HSET', S(w), 'input', string.sub(ARGV[8], 2)) end
for i = 9, #ARGV, 2 do call('HSET', P .. ':keep:' .. w, ARGV[i], ARGV[i + 1]) end
call('ZADD', P .. ':runs', no, w)
set_due(w, NOW + wait)
-- Who has it due later tells somebody of it now.
if wait > 0 then call('HSET', S(w), 'calls', 1) end
return {'ok'}
""")

#: id, seconds, how many at most, workflows' names ... -> "ok" and the runs that are due;
#: they are so again after that time, or a multiple.
DUE = Script(
    """
if is_gone() then return {'gone'} end
local pause, most, due = tonumber(ARGV[2]), tonumber(ARGV[3]), {}
for i = 4, #ARGV do
  local key = P .. ':due:' .. ARGV[i]
  local found = call('ZRANGEBYSCORE', key, '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, most)
  for k = 1, #found, 2 do due[#due + 1] = {key, found[k], tonumber(found[k + 1])} end
end
table.sort(due, function(a, b) return a[3] < b[3] end)
local answer = {'ok'}
for i = 1, math.min(most, #due) do
  local key, w = due[i][1], due[i][2]
  local calls = call('HINCRBY', S(w), 'calls', 1)
  call('ZADD', key, NOW + pause * 2 ^ math.min(calls - 1, 6), w)
  answer[#answer + 1] = w
end
return answer
""",
    oom=True,
)

#: id, run, seconds: it is due then, unless it is so earlier -> "ok", or "no": somebody has it.
FORWARD = Script(
    """
if is_gone() then return {'gone'} end
local name = call('HGET', S(ARGV[2]), 'job')
if not name then return {'no'} end
local key, at = P .. ':due:' .. name, NOW + tonumber(ARGV[3])
local due = call('ZSCORE', key, ARGV[2])
if not due then return {'no'} end
if tonumber(due) > at then call('ZADD', key, at, ARGV[2]) end
return {'ok'}
""",
    oom=True,
)
