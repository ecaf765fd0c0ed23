  -- The rules, on top of `state.lua`: who may hold, who is next, what has expired.

  -- Ends a claim that did not ask for it.
  local function finish_off(e, how)
    take_out(e)
    remember(e.id)
    tell(e, how .. e.id)
  end

  local function admits(mode)
    if lock.holders == 0 then return true end
    if lock.exclusive == 1 or mode == 0 then return false end
    local most = mode > 0 and mode or 4294967295
    local bound = lock.solo and lock.solo.mode or lock.bound
    if bound > 0 and bound < most then most = bound end
    return lock.holders < most
  end

  local function next_token()
    local token = lock.token + 1
    if token < now then token = now end
    lock.token, lock.dirty = token, true
    return token
  end

  -- Makes a claim that is in no key a holder.
  local function grant(e)
    local low = lock.solo and lock.solo.token or lock.low
    local token = next_token()
    e.floor = lock.holders > 0 and low or token
    e.token, e.since = token, now
    put_back(e)
  end

  -- Makes the only holder exclusive, with a new token.
  local function upgrade_now(e)
    take_out(e)
    e.token, e.mode, e.since = next_token(), 0, now
    e.floor = e.token
    put_back(e)
  end

  local function hand_over()
    if lock.upgrading ~= '' then
      if lock.holders == 1 then
        local e = known(lock.upgrading)
        upgrade_now(e)
        tell_grant(e)
      end
      return
    end
    while lock.waiters > 0 do
      local e = known(call('ZRANGE', key .. 'q', '0', '0')[1])
      if not admits(e.mode) then return end
      take_out(e)
      grant(e)
      tell_grant(e)
    end
  end

  local function granted(e)
    return pack('<c1dddd', 'G', now, e.token, e.floor, e.expires - now)
  end

  -- What a waiter is told: its lease, and when the first lease ahead runs out if its turn comes then.
  local function queued(e)
    local recheck = -1
    if e.token > 0 or lock.upgrading == '' and call('ZRANGE', key .. 'q', '0', '0')[1] == e.id then
      if lock.holders > 0 then recheck = (lock.solo and lock.solo.expires or first_score('x')) - now end
    end
    return pack('<c1ddd', 'Q', now, e.expires - now, recheck)
  end

  -- Ends the operation: the header, then the news, then the answer.
  local function finish(answer)
    if lock.dirty then
      local solo, lasts = lock.solo, lock.raw
      if lock.waiters + lock.holders > 0 and lock.horizon > lasts then lasts = lock.horizon end
      if solo and lock.raw + solo.expires - now > lasts then lasts = lock.raw + solo.expires - now end
      if lock.raw + lock.tombs - now > lasts then lasts = lock.raw + lock.tombs - now end
      local again = lasts + FENCE_KEEP > lock.keep
      if again then lock.keep = lasts + FENCE_KEEP + DAY end
      local form = solo and 'f1H' or (lock.waiters + lock.holders > 0 and 'f1S' or 'f1F')
      local head = pack('<c3ddddd', form, now, lock.off, lock.token, lock.tombs, lock.keep)
      local queue = pack('<ddddd', lock.waiters, lock.next_waiter, lock.arrivals, lock.owned, lock.horizon)
      if solo then
        head = head .. pack('<dc32', solo.expires, solo.id) .. queue .. pack('<dddddHc0', solo.since, solo.floor,
          solo.renewed, solo.converted, solo.mode, #solo.rest, solo.rest)
      elseif form == 'f1S' then
        head = head .. queue .. pack('<ddddddc32', lock.holders, lock.exclusive, lock.bound, lock.bounds, lock.low,
          lock.next_holder, lock.upgrading == '' and '                                ' or lock.upgrading)
      end
      if again then
        call('SET', key, head, 'PX', math.ceil((lock.keep - lock.raw) / 1000))
      else
        call('SET', key, head, 'KEEPTTL')
      end
    end
    for channel, lines in pairs(lock.news or {}) do
      redis.pcall('PUBLISH', channel, table.concat(lines))
    end
    return answer
  end

  -- What has expired goes before any other rule is applied.
  do
    local gone = false
    local function expired(set)
      for _, id in ipairs(call('ZRANGEBYSCORE', key .. set, '-inf', now)) do
        finish_off(known(id), 'E')
        gone = true
      end
    end
    if lock.solo then
      if lock.solo.expires <= now then
        finish_off(lock.solo, 'E')
        gone = true
      end
    elseif lock.holders > 0 and lock.next_holder <= now then
      expired('x')
      lock.next_holder, lock.dirty = lock.holders > 0 and first_score('x') or NEVER, true
    end
    if lock.waiters > 0 and lock.next_waiter <= now then
      expired('w')
      lock.next_waiter, lock.dirty = lock.waiters > 0 and first_score('w') or NEVER, true
    end
    if gone then hand_over() end
  end

