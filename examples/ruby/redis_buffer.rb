# frozen_string_literal: true

require_relative 'redisq/queue'

# The grouped buffer, by the recipe's own names, without its races. Python's `Buffer` of the same name is the same one.
class RedisBuffer < Redisq::Queue
  STRUCTURE = 'buffer'
  SIZE = 2000

  def initialize(redis, name, codec: Redisq::JSON, min_size: 1, max_wait: 60, **options)
    super(redis, name, codec: codec, **options)
    raise Redisq::InvalidArgument, 'without max_wait a group under min_size waits for ever' if !max_wait && min_size > 1

    @min_size = min_size
    @max_wait = ms(max_wait || 0)
  end

  # Appends, at most 10,000; the group's length after it. Give a `token` to repeat the call yourself.
  def push(*items, group: 'default', token: Redisq.id)
    add('back', items, group, token)
  end

  # Puts back at the front, in the order in which they were taken.
  def return_batch_to(items, group: 'default', token: Redisq.id)
    add('front', items, group, token)
  end

  # Takes and forgets, oldest first. At most once: what is in a lost reply is gone. Where that matters, reserve.
  def next_batch_for(group: 'default', size: SIZE)
    read_all(call('pop', [*keys('groups', 'since'), key('items', group), *keys('layout', 'guard')], group, size, nil))
  end

  # The names of the longest groups, longest first.
  def longest_groups(count = 2)
    lengths(count).keys
  end

  # The same with their lengths.
  def lengths(count = 2)
    call('longest', keys('groups', 'layout'), count).each_slice(2).to_h { |group, length| [name(group), length] }
  end

  # Settles a batch, but for the items marked with `fail`, which come back after `delay`. How many are done.
  def ack(batch, delay: 0)
    call('ack', ending(batch), batch.id, ms(delay), @memory, nil, *batch.failed)
  end

  # Gives a batch back, whole.
  def release(batch, delay: 0)
    call('release', ending(batch), batch.id, ms(delay), 'count', @memory, nil)
  end

  # Keeps a batch longer. (The script is `extend`; Ruby has given that name away.) Until when.
  def renew(batch, lease: @lease)
    Time.at(0, call('extend', keys('leases', 'layout'), batch.id, ms(lease), nil), :millisecond)
  end

  private

  def add(side, items, group, token)
    keys = [*keys('groups', 'since'), key('items', group), key('once', token), *keys('wake', 'layout')]
    call('push', keys, group, side, @window, nil, *items.map { |item| @codec.dump(item) })
  end

  def take(size, lease, id)
    keys = [*keys('groups', 'since', 'leases', 'delayed', 'dead', 'grants'), key('batch', id), key('ended', id),
            *keys('wake', 'guard', 'layout')]
    retry_in, _buried, *batch =
      call('reserve', keys, id, size, lease, @min_size, @max_wait, @max_attempts, @memory, nil, *@rates)
    [retry_in, (leased(id, *batch) if batch.any?)]
  end

  def leased(id, deadline, group, attempts, raw)
    held = { id: id, raw: raw, attempts: attempts, deadline: deadline, group: name(group) }
    undecoded = Redisq::Batch.new(items: raw, **held)
    Redisq::Batch.new(items: raw.map { |bytes| read(bytes, undecoded) }, **held)
  end

  def ending(batch)
    [*keys('leases', 'delayed'), key('batch', batch.id), key('ended', batch.id), *keys('wake', 'layout')]
  end

  # Nearly always UTF-8; other bytes stay as they are, and go back so.
  def name(group)
    group.force_encoding(Encoding::UTF_8)
  end
end
