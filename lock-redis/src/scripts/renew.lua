-- Renews a holder's lease from now on. `LockState::renew`.
-- ARGV: id; ttl order; channel of the client that renews.
-- Answer: G now token floor left | L now (lost)

do -- The fast path: it is the only holder.
  local call, pack, unpack, key = redis.call, struct.pack, struct.unpack, KEYS[1]
  local head = call('GET', key)
  if head and #head >= 165 and string.sub(head, 1, 3) == 'f1H' then
    local form, seen, off, token, tombs, keep, expires, id, waiters, next_waiter, arrivals, owned, horizon, since, floor,
      last, _, _, rest = unpack('<c3ddddddc32ddddddddddHc0', head)
    if id == ARGV[1] and unpack('<Hc0', rest) == ARGV[3] then
      local clock = call('TIME')
      local raw = clock[1] * 1000000 + clock[2]
      local now = raw + off
      local ttl, order = unpack('<dd', ARGV[2])
      if now >= seen and now < expires and (waiters == 0 or now < next_waiter)
        and raw + ttl + @FENCE_KEEP@ <= keep then
        if order >= last then
          expires = now + ttl
          call('SETRANGE', key, '0', pack('<c3ddddddc32dddddddd', form, now, off, token, tombs, keep, expires, id,
            waiters, next_waiter, arrivals, owned, horizon, since, floor, order))
        end
        return pack('<c1dddd', 'G', now, token, floor, expires - now)
      end
    end
  end
end

--@ state

  local ttl, order = unpack('<dd', ARGV[2])
  local e = get(ARGV[1])
  if not e or e.token == 0 then return finish(pack('<c1d', 'L', now)) end
  if order >= e.renewed then
    e.renewed = order
    local channel, owner, note = unpack('<Hc0Hc0Hc0', e.rest)
    if channel ~= ARGV[3] then -- another client has resumed it
      e.rest = pack('<Hc0Hc0Hc0', #ARGV[3], ARGV[3], #owner, owner, #note, note)
    end
    set_expiry(e, now + ttl)
  end
  return finish(granted(e))
end
return slow()
