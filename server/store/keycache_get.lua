-- KEYS keys
-- Answers the value, or nil, and what is left of its TTL in ms.
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
