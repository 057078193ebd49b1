# frozen_string_literal: true

require_relative 'redisq/queue'

# The grouped buffer, by the recipe's own names, without its races. Python's `Buffer` of the same name is the same one.
class RedisBuffer < Redisq::Queue
  STRUCTURE = 'buffer'
  SIZE = 2000
  STATS = %i[groups busy_groups paused_groups oldest_wait leased delayed dead due next_expiry done failed buried trimmed
             pause].freeze

  # `ordered`: one batch of a group at a time. `isolate`: a batch that has used its attempts is split instead of buried,
  # so that in the end only the item that fails is dead.
  def initialize(redis, name, codec: Redisq::JSON, min_size: 1, max_wait: 60, ordered: false, isolate: false, **options)
    super(redis, name, codec: codec, **options)
    raise Redisq::InvalidArgument, 'without max_wait a group under min_size waits forever' if !max_wait && min_size > 1

    @settings.update(min_size: min_size, max_wait: ms(max_wait || 0),
                     ordered: ordered ? 1 : 0, isolate: isolate ? 1 : 0)
  end

  # Appends; the group's length after it. Give a `token` to repeat the call yourself. How many items one call takes is
  # said by the script's header: `limit('push', 'item')`.
  def push(*items, group: 'default', token: Redisq.id)
    add('back', items, group, token)
  end

  # Puts back at the front, in the order in which they were taken.
  def return_batch_to(items, group: 'default', token: Redisq.id)
    add('front', items, group, token)
  end

  # Removes at once, oldest first; nothing to ack. At most once: what is in a lost reply is gone. Where that matters,
  # reserve.
  def next_batch_for(group: 'default', size: SIZE)
    raw = call('pop', group: group, size: size)
    raw.map { |bytes| read(bytes, raw) }
  end

  # The names of the longest groups, longest first.
  def longest_groups(count = 2)
    groups(count).keys
  end

  # The same with their lengths; `state` may also be 'busy' or 'paused'.
  def groups(count = 100, state: 'waiting')
    found = {}
    cursor = 0
    loop do
      cursor, flat = call('groups', state: state, limit: [count, limit('groups', 'limit')].min, cursor: cursor)
      found.update(flat.each_slice(2).to_h { |group, length| [text(group), length.to_i] })
      break if cursor.zero? || (state == 'waiting' && found.size >= count) # the others come in no order
    end
    found.sort_by.with_index { |(_, length), place| [-length, place] }.first(count).to_h
  end

  # Items that wait, oldest first, from the one at place `after` on. None is taken.
  def peek(count = 1, group: 'default', after: 0)
    raw = call('peek', group: group, start: after, count: count)
    raw.map { |bytes| read(bytes, raw) }
  end

  # Gives no new batch of a group, for so many seconds or until `resume_group`. What was handed out is still retried.
  def pause_group(group, seconds = nil, token: Redisq.id)
    call('pause_group', group: group, once: token, duration: duration(seconds))
    nil
  end

  # Ends the pause of a group and wakes a worker that waits. Whether there was one.
  def resume_group(group, token: Redisq.id)
    call('resume_group', group: group, once: token) == 1
  end

  # Throws away what waits in a group and its delayed and dead batches. How many items that is. What is leased, or
  # pushed meanwhile, stays; when it is stopped half-way, the same call drops the rest.
  def drop_group(group, token: Redisq.id)
    cursor = '0 0'
    dropped = 0
    (0..).each do |page|
      cursor, items = call('drop_group', group: group, once: "#{token}:#{page}", cursor: cursor,
                                         limit: limit('drop_group', 'limit'))
      dropped += items
      return dropped if cursor.empty?
    end
  end

  # A page of batches that are out, the first to run out first, `limit` at most: go on with `after:` the last one's id,
  # until none come.
  def leased(limit: 100, after: nil)
    batches('leases', limit, after)
  end

  # The same for batches that wait for a retry, the first to be due first.
  def delayed(limit: 100, after: nil)
    batches('delayed', limit, after)
  end

  # The same for dead letters, the earliest first.
  def dead(limit: 100, after: nil)
    batches('dead', limit, after)
  end

  # Lets the items of dead letters wait again, at the front of their group. How many of these ids were dead.
  def redrive(*ids, token: Redisq.id)
    redriven = 0
    (0..).each do |part|
      # From the last on, so that in the end the first id's items come first.
      chosen = ids.last(limit('redrive', 'id'))
      done, left = call('redrive', once: "#{token}:#{part}", id: chosen)
      redriven += done
      ids = ids.first(ids.size - chosen.size + left)
      return redriven if ids.empty?
    end
  end

  # Throws dead letters away. How many of these ids were dead.
  def discard(*ids, token: Redisq.id)
    call('discard', once: token, id: ids)
  end

  # A Hash: items that wait, groups, batches that are out or dead, and what was counted so far, in items.
  def stats
    cursor = '0 0 0'
    waiting = 0
    until cursor.empty?
      cursor, counted, *rest = call('stats', cursor: cursor, limit: limit('stats', 'limit'))
      waiting += counted
    end
    stats = name_stats(STATS, rest)
    oldest = stats[:oldest_wait]
    { waiting: waiting, **stats, oldest_wait: oldest.negative? ? nil : oldest.fdiv(1000) }
  end

  private

  def add(side, items, group, token)
    call('push', group: group, side: side, once: token, item: items.map { |item| @codec.dump(item) })
  end

  def batches(state, limit, after)
    call('batches', state: state, limit: limit, after: after).map do |id, time, group, attempts, holder, reason, raw|
      batch(id, time, group, attempts, reason, raw, text(holder))
    end
  end

  def read_event(event, rest, id, holder)
    case event
    when 'batch'
      deadline, group, attempts, reason, raw = rest
      { batch: batch(id, deadline, group, attempts, reason, raw, holder) }
    when 'buried'
      name, group, attempts, reason = rest
      { buried: [Redisq::Buried.new(name, text(group), attempts, text(reason).scrub)] }
    when 'none' then { retry_in: rest.first.fdiv(1000) }
    else {}
    end
  end

  def batch(id, time, group, attempts, reason, raw, holder)
    held = { id: id, raw: raw, attempts: attempts, deadline: time(time), group: text(group),
             reason: text(reason).scrub, holder: holder }
    undecoded = Redisq::Batch.new(items: raw, **held)
    Redisq::Batch.new(items: raw.map { |bytes| read(bytes, undecoded) }, **held)
  end

  # The script keeps one reason for all of a batch's items: the first that was given.
  def failures(failed)
    { failed: failed.keys, reason: failed.values.find { |reason| !reason.empty? } }
  end
end
