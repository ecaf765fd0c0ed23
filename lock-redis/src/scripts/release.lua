-- Lets exactly one claim go, granted or queued. `LockState::release`.
-- ARGV: id; flags unless there are none ('1': remember the id, '2': only a waiting claim, '3': both).
-- Answer: R now | N now (not held) | G now token floor left (granted, and only a waiting claim was to go)

-- The fast paths: it is the only holder, and nobody waits or an exclusive claim is next; it is one reader of several, and
-- nobody waits.
if not ARGV[2] then
  local call, pack, unpack, key = redis.call, struct.pack, struct.unpack, KEYS[1]
  local head = call('GET', key)
  if head and #head >= 93 then
    local form, seen, off, token, tombs, keep, expires, id = unpack('<c3ddddddc32', head)
    if id == ARGV[1] and (form == 'f1N' or form == 'f1H' and #head >= 165) then
      local clock = call('TIME')
      local now = clock[1] * 1000000 + clock[2] + off
      if now >= seen and now < expires then
        local waiters, next_waiter, arrivals, owned, horizon = 0, 0, 0, 0, 0
        if form == 'f1H' then waiters, next_waiter, arrivals, owned, horizon = unpack('<ddddd', head, 84) end
        if waiters == 0 then
          -- Also when memory is short: a script that has removed something may go on.
          if type(redis.pcall('SETRANGE', key, '2', 'F')) == 'table' then
            call('DEL', key .. 'c')
            call('SETRANGE', key, '2', 'F')
          end
          return pack('<c1d', 'R', now)
        end
        local first = now < next_waiter and call('ZRANGE', key .. 'q', '0', '0')[1]
        local packed = first and call('HGET', key .. 'c', first)
        if packed and #packed >= 70 then
          local _, lease, _, renewed, converted, mode = unpack('<dddddd', packed)
          if mode == 0 then
            local rest = string.sub(packed, 65)
            local channel, owner = unpack('<Hc0Hc0', rest)
            call('HDEL', key .. 'c', first)
            call('ZREM', key .. 'q', first)
            call('ZREM', key .. 'w', first)
            if owner ~= '' then
              call('ZREM', key .. 'o', string.format('%04x', #owner - 1) .. string.sub(owner, 2) .. first)
              owned = owned - 1
            end
            token = token + 1
            if token < now then token = now end
            call('SETRANGE', key, '0',
              pack('<c3ddddddc32ddddddddddHc0', form, now, off, token, tombs, keep, lease, first, waiters - 1,
                next_waiter, arrivals, owned, horizon, now, token, renewed, converted, mode, #rest, rest))
            if channel ~= '' then redis.pcall('PUBLISH', channel, 'G' .. first .. pack('<dd', token, token)) end
            return pack('<c1d', 'R', now)
          end
        end
      end
    elseif form == 'f1S' and #head >= 163 then
      local waiters, next_waiter, arrivals, owned, horizon, holders, exclusive, bound, bounds, low, next_holder,
        upgrading = unpack('<dddddddddddc32', head, 44)
      local clock = call('TIME')
      local now = clock[1] * 1000000 + clock[2] + off
      local packed = waiters == 0 and bounds == 0 and holders > 1 and now >= seen and now < next_holder
        and upgrading == '                                ' and call('HGET', key .. 'c', ARGV[1])
      if packed and #packed >= 70 then
        local mine = unpack('<d', packed)
        local _, owner = unpack('<Hc0Hc0', packed, 65)
        call('HDEL', key .. 'c', ARGV[1])
        call('ZREM', key .. 'x', ARGV[1])
        call('ZREM', key .. 't', ARGV[1])
        if mine == low then low = tonumber(call('ZRANGE', key .. 't', '0', '0', 'WITHSCORES')[2]) end
        if owner ~= '' then
          call('ZREM', key .. 'o', string.format('%04x', #owner - 1) .. string.sub(owner, 2) .. ARGV[1])
          owned = owned - 1
        end
        call('SETRANGE', key, '0', pack('<c3dddddddddddddddd', form, now, off, token, tombs, keep, waiters, next_waiter,
          arrivals, owned, horizon, holders - 1, exclusive, bound, bounds, low, next_holder))
        return pack('<c1d', 'R', now)
      end
    end
  end
end

--@ state

  local id, flags = ARGV[1], tonumber(ARGV[2] or 0)
  local e = get(id)
  if flags >= 2 and e and e.token > 0 then return finish(granted(e)) end
  if e then
    if e == lock.solo then call('DEL', key .. 'x') end -- as above: it is not there, but has been removed
    take_out(e)
  end
  if flags % 2 == 1 then remember(id) end
  if not e then return finish(pack('<c1d', 'N', now)) end
  hand_over()
  return finish(pack('<c1d', 'R', now))
end
return slow()
