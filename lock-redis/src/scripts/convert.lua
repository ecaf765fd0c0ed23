-- Converts a holder between exclusive and shared or permit. `LockState::convert`.
-- ARGV: id; mode order.
-- Answer: G now token floor left | Q now left recheck | L now (lost) | D now (would deadlock) | U now (unsupported)

--@ state

  local id = ARGV[1]
  local to, order = unpack('<dd', ARGV[2])
  local e = get(id)
  if not e or e.token == 0 then return finish(pack('<c1d', 'L', now)) end
  if order >= e.converted then
    if e.mode == to then
      if lock.upgrading == id then lock.upgrading = '' end
    elseif e.mode == 0 then
      e.mode, lock.exclusive = to, 0
      if e ~= lock.solo then add_bound(e) end
    elseif to ~= 0 then
      return finish(pack('<c1d', 'U', now))
    elseif lock.upgrading ~= '' and lock.upgrading ~= id then
      return finish(pack('<c1d', 'D', now))
    elseif lock.holders == 1 then
      upgrade_now(e)
    else
      lock.upgrading = id
    end
    e.converted = order
    put(e)
    hand_over()
  end
  return finish(lock.upgrading == id and queued(e) or granted(e))
end
return slow()
