-- Whether somebody holds the key or waits for it: 1 or 0. It changes nothing.

local call, key = redis.call, KEYS[1]
local head = call('GET', key)
if not head or #head < 43 then return 0 end
local form, seen, off = struct.unpack('<c3dd', head)
local clock = call('TIME')
local now = math.max(clock[1] * 1000000 + clock[2] + off, seen)
if (form == 'f1N' or form == 'f1H') and #head >= 93 and struct.unpack('<d', head, 44) > now then return 1 end
if form ~= 'f1H' and form ~= 'f1S' then return 0 end
for _, set in ipairs({ 'x', 'w' }) do
  local last = call('ZREVRANGE', key .. set, '0', '0', 'WITHSCORES')[2]
  if last and tonumber(last) > now then return 1 end
end
return 0
