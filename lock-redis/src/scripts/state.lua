-- The lock as `lockcore::state::LockState` has it, with the same names: what every operation shares once its fast path
-- does not apply. This file and `rules.lua` are pasted where an operation says `--@ state`, and it goes on from there.
--
-- Keys of one lock, `KEYS[1]` and a letter:
--       the header, a string, see below
--   c   hash: the claims by id, but for the one in the header
--   x t sorted sets: the holders in c by expiry, and by token
--   w q sorted sets: the waiters by expiry, and by place
--   o b sorted sets: the claims in c by owner; the permits among the holders in c by bound
--   d   sorted set: ids that have ended, by when they may be forgotten
-- Layouts (little endian; a number is a double that holds an integer below 2^53; times in microseconds):
--   header   'f1' form, seen offset token tombs keep; then by form
--     F      nobody holds or waits; what follows is left over and means nothing
--     N      one holds as it was granted, nobody waits: expires, id (32), mode, rest (its length as 16 bits first);
--            since is seen, floor is token
--     H      one holds: expires, id, waiters next_waiter arrivals owned horizon, since floor renewed converted mode, rest;
--            its token is the last one
--     S      no holder is in the header: waiters next_waiter arrivals owned horizon, holders exclusive bound bounds low
--            next_holder, upgrading (32)
--   claim    token (0: it waits) expires since renewed converted mode floor place, rest
--   mode     0 exclusive, -1 shared, n a permit with at_most n
--   rest     channel, owner, note, the length of each as 16 bits first; owner and note are empty or begin with '='
local call, pack, unpack, key = redis.call, struct.pack, struct.unpack, KEYS[1]
local lock = {
  seen = 0, off = 0, token = 0, tombs = 0, keep = 0,
  waiters = 0, next_waiter = 9007199254740991, arrivals = 0, owned = 0, horizon = 0,
  holders = 0, exclusive = 0, bound = 0, bounds = 0, low = 0, next_holder = 9007199254740991,
  upgrading = '', solo = false, dirty = false, raw = 0, now = 0, news = false,
}

-- In a function of its own, so that the helpers find what is above in one step each.
local function slow()
  local NEVER, FENCE_KEEP, FORGET, DAY = 9007199254740991, @FENCE_KEEP@, @FORGET_AFTER@, 86400000000

  local function conflict(where)
    return error('fencelock-conflict ' .. key .. where)
  end

  do
    local clock = call('TIME')
    lock.raw = clock[1] * 1000000 + clock[2]
    local head = call('GET', key)
    if head then
      if #head < 43 then conflict('') end
      local form
      form, lock.seen, lock.off, lock.token, lock.tombs, lock.keep = unpack('<c3ddddd', head)
      local e = { token = lock.token, place = 0, since = lock.seen, floor = lock.token, renewed = 0, converted = 0 }
      if form == 'f1N' and #head >= 93 then
        e.expires, e.id, e.mode, e.rest = unpack('<dc32dHc0', head, 44)
        lock.solo = e
      elseif form == 'f1H' and #head >= 165 then
        e.expires, e.id, lock.waiters, lock.next_waiter, lock.arrivals, lock.owned, lock.horizon, e.since, e.floor,
          e.renewed, e.converted, e.mode, e.rest = unpack('<dc32ddddddddddHc0', head, 44)
        lock.solo = e
      elseif form == 'f1S' and #head >= 163 then
        lock.waiters, lock.next_waiter, lock.arrivals, lock.owned, lock.horizon, lock.holders, lock.exclusive,
          lock.bound, lock.bounds, lock.low, lock.next_holder, lock.upgrading = unpack('<dddddddddddc32', head, 44)
        if lock.upgrading == '                                ' then lock.upgrading = '' end
      elseif form ~= 'f1F' then
        conflict('')
      end
      if lock.solo then lock.holders, lock.exclusive = 1, e.mode == 0 and 1 or 0 end
      if lock.horizon <= lock.raw and (lock.waiters > 0 or form == 'f1S') then -- those keys have vanished by themselves
        lock.waiters, lock.owned, lock.dirty = 0, 0, true
        if form == 'f1S' then lock.holders, lock.exclusive, lock.bound, lock.bounds, lock.upgrading = 0, 0, 0, 0, '' end
      end
    end
    lock.now = lock.raw + lock.off
    if lock.now < lock.seen then -- the clock went back: the offset takes up the difference
      lock.off = lock.off + lock.seen - lock.now
      lock.now = lock.seen
    end
  end
  local now = lock.now

  local function parse(id, packed)
    if #packed < 70 then conflict('c') end
    local e = { id = id, rest = packed:sub(65) }
    e.token, e.expires, e.since, e.renewed, e.converted, e.mode, e.floor, e.place = unpack('<dddddddd', packed)
    return e
  end

  -- The claim of this id, holding or waiting, or nil.
  local function get(id)
    local solo = lock.solo
    if solo then
      if solo.id == id then return solo end
      if lock.waiters == 0 then return nil end
    elseif lock.holders + lock.waiters == 0 then
      return nil
    end
    local packed = call('HGET', key .. 'c', id)
    return packed and parse(id, packed) or nil
  end

  -- As `get`, for an id that another key names.
  local function known(id)
    return id and get(id) or conflict('c')
  end

  local function first_score(set)
    return tonumber(call('ZRANGE', key .. set, '0', '0', 'WITHSCORES')[2] or conflict(set))
  end

  local function packed(e)
    return pack('<dddddddd', e.token, e.expires, e.since, e.renewed, e.converted, e.mode, e.floor, e.place) .. e.rest
  end

  local function put(e)
    lock.dirty = true
    if e ~= lock.solo then call('HSET', key .. 'c', e.id, packed(e)) end
  end

  -- Keys vanish by themselves: each lives at least as long as the longest lease.
  local function outlive(expires, alone)
    local left = expires - now
    if lock.raw + left > lock.horizon then
      lock.horizon = lock.raw + left + math.min(math.max(left, 60000000), DAY)
      if alone then return end -- none is there yet
      local ms = math.ceil((lock.horizon - lock.raw) / 1000)
      for letter in ('cxtqwob'):gmatch('.') do call('PEXPIRE', key .. letter, ms) end
    end
  end

  local function born(letter)
    call('PEXPIRE', key .. letter, math.ceil((lock.horizon - lock.raw) / 1000))
  end

  local function owner_entry(e)
    local _, owner = unpack('<Hc0Hc0', e.rest)
    return owner ~= '' and ('%04x'):format(#owner - 1) .. owner:sub(2) .. e.id
  end

  local function by_owner(e)
    local entry = owner_entry({ rest = e.rest, id = '' })
    return call('ZRANGEBYLEX', key .. 'o', '[' .. entry, '(' .. entry .. 'g')
  end

  local function add_bound(e)
    if e.mode <= 0 then return end
    call('ZADD', key .. 'b', e.mode, e.id)
    if lock.bounds == 0 then born('b') end
    lock.bounds = lock.bounds + 1
    if lock.bound == 0 or e.mode < lock.bound then lock.bound = e.mode end
  end

  local function remove_bound(e)
    if e.mode <= 0 then return end
    call('ZREM', key .. 'b', e.id)
    lock.bounds = lock.bounds - 1
    if lock.bounds == 0 then lock.bound = 0 elseif e.mode == lock.bound then lock.bound = first_score('b') end
  end

  -- Writes a claim that is in no key into those where it belongs, by what it says of itself.
  local function put_in(e)
    local alone = lock.waiters == 0 and (lock.holders == 0 or lock.solo)
    if alone then -- what may lie there was left behind by a header that somebody has removed
      call('DEL', key .. 'c', key .. 'x', key .. 't', key .. 'q', key .. 'w', key .. 'o', key .. 'b')
      lock.horizon, lock.owned = 0, 0
    end
    outlive(e.expires, alone)
    if e.token > 0 then
      call('ZADD', key .. 'x', e.expires, e.id)
      call('ZADD', key .. 't', e.token, e.id)
      if lock.holders == 0 then
        born('x')
        born('t')
        lock.low, lock.next_holder = e.token, e.expires
      else
        if e.token < lock.low then lock.low = e.token end
        if e.expires < lock.next_holder then lock.next_holder = e.expires end
      end
      add_bound(e)
      lock.holders = lock.holders + 1
      if e.mode == 0 then lock.exclusive = 1 end
    else
      call('ZADD', key .. 'q', e.place, e.id)
      call('ZADD', key .. 'w', e.expires, e.id)
      if lock.waiters == 0 then
        born('q')
        born('w')
        lock.next_waiter = e.expires
      elseif e.expires < lock.next_waiter then
        lock.next_waiter = e.expires
      end
      lock.waiters = lock.waiters + 1
    end
    local owner = owner_entry(e)
    if owner then
      call('ZADD', key .. 'o', '0', owner)
      if lock.owned == 0 then born('o') end
      lock.owned = lock.owned + 1
    end
    put(e)
    if alone then born('c') end
  end

  -- Writes the claim that the header has into keys of its own.
  local function spill()
    local e = lock.solo
    if e then
      lock.solo, lock.holders = false, 0
      put_in(e)
    end
  end

  local function put_back(e)
    if e.token == 0 then return put_in(e) end
    if lock.holders == 0 and e.token == lock.token then -- a holder that is alone lives in the header
      lock.solo, lock.holders, lock.exclusive, lock.dirty = e, 1, e.mode == 0 and 1 or 0, true
      return
    end
    spill()
    put_in(e)
  end

  local function take_out(e)
    lock.dirty = true
    if e == lock.solo then
      lock.solo, lock.holders, lock.exclusive = false, 0, 0
      return
    end
    call('HDEL', key .. 'c', e.id)
    if e.token > 0 then
      call('ZREM', key .. 'x', e.id)
      call('ZREM', key .. 't', e.id)
      lock.holders, lock.exclusive = lock.holders - 1, 0
      if lock.holders > 0 and e.token == lock.low then lock.low = first_score('t') end
      remove_bound(e)
      if lock.upgrading == e.id then lock.upgrading = '' end
    else
      call('ZREM', key .. 'q', e.id)
      call('ZREM', key .. 'w', e.id)
      lock.waiters = lock.waiters - 1
    end
    local owner = lock.owned > 0 and owner_entry(e)
    if owner then
      call('ZREM', key .. 'o', owner)
      lock.owned = lock.owned - 1
    end
  end

  local function set_expiry(e, expires)
    e.expires = expires
    if e ~= lock.solo then
      outlive(expires)
      if e.token > 0 then
        call('ZADD', key .. 'x', expires, e.id)
        if expires < lock.next_holder then lock.next_holder = expires end
      else
        call('ZADD', key .. 'w', expires, e.id)
        if expires < lock.next_waiter then lock.next_waiter = expires end
      end
    end
    put(e)
  end

  local function tell(e, line)
    local channel = unpack('<Hc0', e.rest)
    if channel == '' then return end
    if not lock.news then lock.news = {} end
    local lines = lock.news[channel]
    if lines then lines[#lines + 1] = line else lock.news[channel] = { line } end
  end

  local function tell_grant(e)
    tell(e, 'G' .. e.id .. pack('<dd', e.token, e.floor))
  end

  local function remember(id)
    -- Another client may remember for longer.
    lock.tombs, lock.dirty = math.max(lock.tombs, now + FORGET), true
    call('ZREMRANGEBYSCORE', key .. 'd', '-inf', now)
    call('ZADD', key .. 'd', 'GT', now + FORGET, id)
    call('PEXPIRE', key .. 'd', math.ceil((lock.tombs - now) / 1000))
  end

