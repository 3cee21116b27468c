-- KEYS erasing
-- ARGV ms
-- From now on the user makes no session. Answers now, in ms: all sessions that there are were
-- created before, or at it.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return clock_ms()
