//! What Redis is told to do: one Lua script for each operation of a store, so that each is atomic.
//!
//! All there is of a [`StoreKey`](crate::store::StoreKey) is one hash under one key, so that a cluster keeps it in one
//! slot, that nothing can be lost in part, and that one expiry covers it. Its fields:
//!
//! | field | what it is |
//! |---|---|
//! | `value`, `version`, `until` | what was saved, as which version, and when it ends |
//! | `fence` | the number of the newest lease |
//! | `lease`, `length` | when that lease ends, and how long it lasts from when it was taken or renewed last |
//! | `owner`, `abandoned` | who holds it, and what the holder was told; gone once the lease was given back |
//!
//! Times are milliseconds of Redis' clock: those of the processes are not compared. Versions and fences grow by at least
//! one and are never less than its microseconds, so that they do not start again with the hash. (Lua counts without error
//! to 2^53, which is the year 2255.) A node that was promoted may have a slower clock than the one that wrote a lease:
//! no lease is taken to go on for longer than it lasts.
//!
//! A hash with a field that is not plain digits where there must be a number (Lua takes `inf` and `nan` for some, too)
//! answers `DAMAGED`, so that it is told apart from a Redis
//! in trouble.

/// Begins each script: the time, and the fields.
macro_rules! script {
    ($body:literal) => {
        concat!(
            r"
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)
local h = redis.call('HMGET', KEYS[1], 'value', 'version', 'until', 'fence', 'lease', 'owner', 'abandoned', 'length')
local value, version, ends, fence, lease, owner, abandoned, length = h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8]
local function damaged(n) return n and (#n > 16 or not string.find(n, '^%d+$')) end
if (value and not (ends and version)) or (owner and not (lease and fence))
  or damaged(ends) or damaged(version) or damaged(fence) or damaged(lease) or damaged(length) then
  return redis.error_reply('DAMAGED a field of the hash is not what it should be')
end
local live = value and now < tonumber(ends)
local left = owner and math.max(math.min(tonumber(lease) - now, tonumber(length or lease)), 0) or 0
local function number(n) return string.format('%.0f', n) end
local function after(n) return number(math.max((tonumber(n or 0)) + 1, micros)) end
local function expire(at) redis.call('PEXPIREAT', KEYS[1], number(math.max(at, live and tonumber(ends) or 0))) end
",
            $body
        )
    };
}

/// `[version, value]`, or nothing.
pub(super) const LOAD: &str = script!(
    r"
if live then return {version, value} end
return false
"
);

/// Value, expected version, fence, life in ms. `[word, version]`.
///
/// The same bytes again are the same save again, whose answer was lost: each encryption of a value gives other bytes.
pub(super) const SAVE: &str = script!(
    r"
if fence ~= ARGV[3] then return {'fenced', '0'} end
if live and value == ARGV[1] then return {'done', version} end
if (live and version or '0') ~= ARGV[2] then return {'conflict', '0'} end
local next = after(version)
live = true
ends = number(now + ARGV[4])
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'version', next, 'until', ends)
expire(owner and tonumber(lease) or 0)
redis.call('PUBLISH', KEYS[1], 'saved')
return {'done', next}
"
);

/// Owner, duration in ms, for how long to remember that it was not given back. `[fence, abandoned]`, or nothing.
///
/// The same owner again is the same lease again, whose answer was lost.
pub(super) const LEASE: &str = script!(
    r"
if left > 0 then
  if owner == ARGV[1] then return {fence, abandoned} end
  if tonumber(lease) - now > left then redis.call('HSET', KEYS[1], 'lease', number(now + left)) end
  return false
end
abandoned = owner and '1' or '0'
fence = after(fence)
redis.call('HSET', KEYS[1], 'fence', fence, 'lease', number(now + ARGV[2]), 'length', ARGV[2], 'owner', ARGV[1],
  'abandoned', abandoned)
expire(now + ARGV[2] + ARGV[3])
return {fence, abandoned}
"
);

/// Fence, duration in ms, memory in ms as in `LEASE`. One, or zero: it has ended.
pub(super) const RENEW: &str = script!(
    r"
if fence ~= ARGV[1] or left == 0 then return 0 end
redis.call('HSET', KEYS[1], 'lease', number(now + ARGV[2]), 'length', ARGV[2])
expire(now + ARGV[2] + ARGV[3])
return 1
"
);

/// Fence.
pub(super) const RELEASE: &str = script!(
    r"
if fence ~= ARGV[1] or not owner then return 0 end
if live then
  redis.call('HDEL', KEYS[1], 'lease', 'length', 'owner', 'abandoned')
  expire(0)
else
  redis.call('DEL', KEYS[1])
end
redis.call('PUBLISH', KEYS[1], 'released')
return 1
"
);

/// `[version, ms until the lease ends]`; zero where there is none.
pub(super) const LOOK: &str = script!(
    r"
return {live and version or '0', number(left)}
"
);

/// Whatever there is, damaged or not.
pub(super) const REMOVE: &str = r"
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', KEYS[1], 'removed')
return 1
";

/// The name of the channel over which processes are asked for copies, which is no key; the key.
pub(super) const RECALL: &str = r"
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
";
