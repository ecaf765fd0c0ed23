-- Who holds, by token, and who waits, in order. `LockState::inspect`.
-- Answer: now, the id of the waiting upgrade, then each claim as its id and its details, holders first.

--@ state

  local answer = { pack('<d', now), lock.upgrading }
  local function show(set)
    local ids = call('ZRANGE', key .. set, '0', '-1')
    for from = 1, #ids, 1000 do -- a call takes as many arguments as fit on Lua's stack
      local some = { 'HMGET', key .. 'c' }
      for i = from, math.min(from + 999, #ids) do some[#some + 1] = ids[i] end
      for i, details in ipairs(call(_G.unpack(some))) do
        if details then answer[#answer + 1] = ids[from + i - 1] .. details end
      end
    end
  end
  if lock.solo then
    answer[3] = lock.solo.id .. packed(lock.solo)
  elseif lock.holders > 0 then
    show('t')
  end
  if lock.waiters > 0 then show('q') end
  return finish(answer)
end
return slow()
