-- Joins a claim to its key: grants it, queues it, or answers that it is busy or gone. `LockState::acquire`.
-- ARGV: id; ttl waiter_ttl mode joins (1: queue when busy); rest; 'take-over' to end the owner's other claims.
-- Answer: G now token floor left | Q now left recheck-or--1 | B now | X now (gone)

-- The fast paths: nobody holds; one holds and the claim must wait; a reader joins others and nobody waits. No function is
-- defined before them: that would cost more than all of it does.
if not ARGV[4] then
  local call, pack, unpack, key, id = redis.call, struct.pack, struct.unpack, KEYS[1], ARGV[1]
  local head = call('GET', key)
  local form, seen, off, token, tombs, keep = 'f1F', 0, 0, 0, 0, 0
  if head and #head >= 43 then
    form, seen, off, token, tombs, keep = unpack('<c3ddddd', head)
  elseif head then
    form = ''
  end
  if form == 'f1F' or form == 'f1N' or form == 'f1H' and #head >= 165 or form == 'f1S' and #head >= 163 then
    local clock = call('TIME')
    local raw = clock[1] * 1000000 + clock[2]
    local now = raw + off
    if now < seen then
      off = off + seen - now
      now = seen
    end
    local ttl, waiter_ttl, mode, joins = unpack('<dddd', ARGV[2])
    if tombs > now and call('ZSCORE', key .. 'd', id) then
      form = '' -- it may have ended
    elseif form == 'f1F' then
      local lasts = raw + ttl + @FENCE_KEEP@
      token = token + 1
      if token < now then token = now end
      if lasts <= keep then
        call('SETRANGE', key, '0', pack('<c3ddddddc32dHc0', 'f1N', now, off, token, tombs, keep, now + ttl, id, mode,
          #ARGV[3], ARGV[3]))
      else
        keep = lasts + 86400000000
        call('SET', key, pack('<c3ddddddc32dHc0', 'f1N', now, off, token, tombs, keep, now + ttl, id, mode, #ARGV[3],
          ARGV[3]), 'PX', math.ceil((keep - raw) / 1000))
      end
      return pack('<c1dddd', 'G', now, token, token, ttl)
    elseif form == 'f1H' then
      local expires, holder, waiters, next_waiter, arrivals, owned, horizon, _, _, _, _, holds =
        unpack('<dc32dddddddddd', head, 44)
      local nobody_expired = now < expires and (waiters == 0 or now < next_waiter)
      local must_wait = id ~= holder and (mode == 0 or waiters > 0 or holds == 0)
      if waiters == 0 then
        horizon = raw + waiter_ttl + 60000000
        owned, next_waiter = 0, now + waiter_ttl
      end
      if nobody_expired and must_wait and raw + waiter_ttl <= horizon and horizon + @FENCE_KEEP@ <= keep
        and not (waiters > 0 and call('HGET', key .. 'c', id)) then
        if joins == 0 then return pack('<c1d', 'B', now) end
        if waiters == 0 then -- what may lie there was left behind by a header that somebody has removed
          call('DEL', key .. 'c', key .. 'x', key .. 't', key .. 'q', key .. 'w', key .. 'o', key .. 'b')
        end
        arrivals = arrivals + 1
        local lease, rest = now + waiter_ttl, ARGV[3]
        call('ZADD', key .. 'q', arrivals, id)
        call('ZADD', key .. 'w', lease, id)
        call('HSET', key .. 'c', id, pack('<dddddddd', 0, lease, now, 0, 0, mode, 0, arrivals) .. rest)
        local ms = waiters == 0 and math.ceil((horizon - raw) / 1000)
        if ms then
          call('PEXPIRE', key .. 'q', ms)
          call('PEXPIRE', key .. 'w', ms)
          call('PEXPIRE', key .. 'c', ms)
        end
        local _, owner = unpack('<Hc0Hc0', rest)
        if owner ~= '' then
          call('ZADD', key .. 'o', '0', string.format('%04x', #owner - 1) .. string.sub(owner, 2) .. id)
          if owned == 0 then call('PEXPIRE', key .. 'o', math.ceil((horizon - raw) / 1000)) end
          owned = owned + 1
        end
        if lease < next_waiter then next_waiter = lease end
        call('SETRANGE', key, '0',
          pack('<c3ddddddc32ddddd', form, now, off, token, tombs, keep, expires, holder, waiters + 1, next_waiter, arrivals,
            owned, horizon))
        return pack('<c1ddd', 'Q', now, waiter_ttl, waiters == 0 and expires - now or -1)
      end
    elseif form == 'f1S' and mode == -1 then
      local waiters, next_waiter, arrivals, owned, horizon, holders, exclusive, bound, bounds, low, next_holder,
        upgrading = unpack('<dddddddddddc32', head, 44)
      if waiters == 0 and exclusive == 0 and bounds == 0 and now < next_holder
        and upgrading == '                                ' and raw + ttl <= horizon
        and horizon + @FENCE_KEEP@ <= keep then
        local lease, rest = now + ttl, ARGV[3]
        token = token + 1
        if token < now then token = now end
        if call('ZADD', key .. 't', 'NX', token, id) == 1 then -- otherwise it holds already
          call('ZADD', key .. 'x', lease, id)
          call('HSET', key .. 'c', id, pack('<dddddddd', token, lease, now, 0, 0, mode, low, 0) .. rest)
          local _, owner = unpack('<Hc0Hc0', rest)
          if owner ~= '' then
            call('ZADD', key .. 'o', '0', string.format('%04x', #owner - 1) .. string.sub(owner, 2) .. id)
            if owned == 0 then call('PEXPIRE', key .. 'o', math.ceil((horizon - raw) / 1000)) end
            owned = owned + 1
          end
          if lease < next_holder then next_holder = lease end
          call('SETRANGE', key, '0', pack('<c3dddddddddddddddd', form, now, off, token, tombs, keep, waiters, next_waiter,
            arrivals, owned, horizon, holders + 1, exclusive, bound, bounds, low, next_holder))
          return pack('<c1dddd', 'G', now, token, low, ttl)
        end
      end
    end
  end
end

--@ state

  local id, rest = ARGV[1], ARGV[3]
  local ttl, waiter_ttl, mode, joins = unpack('<dddd', ARGV[2])

  local e = get(id)
  if e then -- a heartbeat, which never shortens a lease
    if now + waiter_ttl > e.expires then set_expiry(e, now + waiter_ttl) end
    return finish(e.token > 0 and granted(e) or queued(e))
  end
  if lock.tombs > now then
    local forgotten = call('ZSCORE', key .. 'd', id)
    if forgotten and tonumber(forgotten) > now then return finish(pack('<c1d', 'X', now)) end
  end

  e = { id = id, token = 0, since = now, renewed = 0, converted = 0, mode = mode, floor = 0, rest = rest }

  -- Its place: at the tail, or that of the owner's claims that it replaces: ahead of the queue for a holder's.
  local replaced, was_upgrading, foremost = {}, lock.upgrading, nil
  if ARGV[4] == 'take-over' then
    spill() -- only claims with keys of their own are found by owner
    for _, other in ipairs(lock.owned > 0 and by_owner(e) or {}) do
      local old = known(other:sub(-32))
      take_out(old)
      replaced[#replaced + 1] = old
      local place = old.token > 0 and -NEVER or old.place
      if not foremost or place < foremost then foremost = place end
    end
  end
  if not foremost or foremost == -NEVER then
    lock.arrivals = lock.arrivals + 1
    e.place = foremost and lock.arrivals - 1125899906842624 or lock.arrivals
  else
    e.place = foremost
  end

  local free = lock.upgrading == '' and admits(mode) and not (lock.waiters > 0 and first_score('q') < e.place)
  if not free and joins == 0 then
    for _, old in ipairs(replaced) do put_back(old) end
    lock.upgrading = was_upgrading
    return finish(pack('<c1d', 'B', now))
  end
  for _, old in ipairs(replaced) do
    remember(old.id)
    tell(old, 'T' .. old.id)
  end
  if free then
    e.expires = now + ttl
    grant(e)
  else
    e.expires = now + waiter_ttl
    put_back(e)
  end
  if #replaced > 0 then -- what a take-over ended may have let others go ahead, or even this claim after them
    hand_over()
    e = known(id)
  end
  return finish(e.token > 0 and granted(e) or queued(e))
end
return slow()
