# frozen_string_literal: true

require_relative 'redisq/queue'

# The unique priority queue, by the recipe's own names, without its races. The lowest score leaves first, and is kept
# when a member is added again. Python's `PriorityQueue` of the same name and order is the same one.
class RedisPriorityQueue < Redisq::Queue
  STRUCTURE = 'priority'
  SIZE = 1
  OUTCOMES = { 'A' => :added, 'R' => :raised, 'K' => :kept }.freeze
  PLACES = 2**42 # in fifo order a stored score is priority * PLACES + place

  # `order`: 'score', any finite number, equal ones in byte order, is the recipe's sorted set. 'fifo', whole numbers
  # from -1024 to 1023, equal ones first come first served, is Python's default.
  def initialize(redis, name, order: 'score', codec: Redisq::TEXT, **options)
    super(redis, name, codec: codec, **options)
    @order = order.to_s
  end

  # Adds a member or raises it: :added, :raised or :kept. Give a `token` to repeat the call yourself.
  def add(member, score, delay: 0, token: Redisq.id)
    add_all({ member => score }, delay: delay, token: token).first
  end

  # The same for at most 1,000 members, a Hash or pairs of member and score.
  def add_all(scores, delay: 0, token: Redisq.id)
    keys = [*keys('ready', 'later', 'rows', 'meta'), key('once', token), *keys('wake', 'layout')]
    pairs = scores.flat_map { |member, score| [score, @codec.dump(member)] }
    call('push', keys, @order, ms(delay), @window, nil, *pairs).chars.map(&OUTCOMES)
  end

  # Takes and forgets at most 1,000, as members or as pairs of member and score. At most once: what is in a lost reply
  # is gone. Where that matters, reserve.
  def zpop(count = 1, with_scores: false)
    keys = keys('ready', 'later', 'rows', 'meta', 'wake', 'layout', 'guard')
    _retry, _buried, triples = call('pop', keys, @order, count, @max_attempts, nil)
    raw, scores, = columns(triples)
    members = read_all(raw)
    with_scores ? members.zip(scores) : members
  end

  # Settles the members that are still held, but for those marked with `fail`, which come back after `delay`. How many
  # are done. The lease is lost when none of either is held.
  def ack(batch, delay: 0)
    failed = batch.raw.values_at(*batch.failed)
    done = batch.raw - failed # members are unique
    parts = []
    parts << attempt { call('ack', ending(batch), batch.id, @memory, nil, *done) } if done.any?
    parts << attempt { back(batch, failed, delay) && 0 } if failed.any?
    parts.all?(Redisq::LeaseLost) ? raise(parts.first) : parts.grep(Integer).sum
  end

  # Gives the members that are still held back. How many.
  def release(batch, delay: 0)
    back(batch, batch.raw, delay)
  end

  # Keeps a batch longer. (The script is `extend`; Ruby has given that name away.) Until when.
  def renew(batch, lease: @lease)
    keys = [*keys('later', 'rows'), key('lease', batch.id), key('layout')]
    _held, deadline = call('extend', keys, batch.id, ms(lease), @memory, nil, *batch.raw)
    Time.at(0, deadline, :millisecond)
  end

  private

  def take(size, lease, id)
    keys = [*keys('ready', 'later', 'rows', 'meta'), key('lease', id), *keys('grants', 'wake', 'layout')]
    retry_in, _buried, deadline, triples =
      call('reserve', keys, @order, id, size, lease, @max_attempts, @memory, nil, *@rates)
    [retry_in, (leased(id, deadline, triples) if triples.any?)]
  end

  def leased(id, deadline, triples)
    raw, scores, attempts = columns(triples)
    held = { id: id, raw: raw, attempts: attempts.max, deadline: deadline, scores: scores }
    undecoded = Redisq::Batch.new(items: raw, **held)
    Redisq::Batch.new(items: raw.map { |bytes| read(bytes, undecoded) }, **held)
  end

  # Members, their scores as they were added, and how often each was handed out.
  def columns(triples)
    members, scores, attempts = triples.each_slice(3).to_a.transpose
    [members || [], (scores || []).map { |score| added(Float(score)) }, attempts]
  end

  def attempt
    yield
  rescue Redisq::LeaseLost => e
    e
  end

  def added(score)
    @order == 'fifo' ? (score / PLACES).floor : score
  end

  def back(batch, members, delay)
    call('release', ending(batch), batch.id, @max_attempts, ms(delay), 'count', @memory, nil, *members).first
  end

  def ending(batch)
    [*keys('ready', 'later', 'rows'), key('lease', batch.id), *keys('wake', 'layout', 'guard')]
  end
end
