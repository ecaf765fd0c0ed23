-- Takes claims off the key by force. `LockState::break_claims`.
-- ARGV: what ('id', 'token', 'owner', 'holders', 'all'); which.
-- Answer: now, the id of the waiting upgrade, then each claim that was removed as its id and its details.

--@ state

  local what, which = ARGV[1], ARGV[2]
  local ids = {}
  local function add(list, from)
    for _, each in ipairs(list) do ids[#ids + 1] = each:sub(from) end
  end
  spill()
  if lock.holders + lock.waiters > 0 then
    if what == 'id' then
      ids[1] = which
    elseif what == 'token' then
      add(call('ZRANGEBYSCORE', key .. 't', which, which), 1)
    elseif what == 'owner' and #which <= 1024 then -- nobody has a longer one, and 16 bits could not count it
      add(by_owner({ rest = pack('<HHc0', 0, #which + 1, '=' .. which) }), -32)
    elseif what == 'holders' or what == 'all' then
      add(call('ZRANGE', key .. 't', '0', '-1'), 1)
      if what == 'all' then add(call('ZRANGE', key .. 'q', '0', '-1'), 1) end
    end
  end
  local named = {}
  for _, id in ipairs(ids) do named[#named + 1] = get(id) end
  table.sort(named, function(a, b) -- holders by token, then waiters in the order of service
    if (a.token > 0) ~= (b.token > 0) then return a.token > 0 end
    if a.token > 0 then return a.token < b.token end
    return a.place < b.place
  end)
  local answer = { pack('<d', now), lock.upgrading }
  for _, e in ipairs(named) do
    answer[#answer + 1] = e.id .. packed(e)
    finish_off(e, 'B')
  end
  hand_over()
  return finish(answer)
end
return slow()
