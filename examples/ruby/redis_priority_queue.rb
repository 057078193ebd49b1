# frozen_string_literal: true

require_relative 'redisq/queue'

# The unique priority queue, by the recipe's own names, without its races. The lowest score leaves first, and is kept
# when a member is added again. Python's `PriorityQueue` of the same name and order is the same one.
class RedisPriorityQueue < Redisq::Queue
  STRUCTURE = 'priority'
  SIZE = 1
  OUTCOMES = { 'A' => :added, 'R' => :raised, 'C' => :changed, 'K' => :kept }.freeze
  PLACES = 10**12 # in fifo order a stored score is (priority + 1024) * PLACES + place
  STATS = %i[waiting delayed leased dead batches due next_expiry done failed buried trimmed pause].freeze

  # A member with what is known of it. `attempts` counts the hand-overs, a pop included; `payload` is nil where there is
  # none; `reason` says why it came back, or died; `time` is when it is due, or died, in a listing of such, else nil.
  Item = Struct.new(:member, :score, :attempts, :payload, :reason, :time)

  # `order`: 'score', any finite number, equal ones in byte order, is the recipe's sorted set. 'fifo', whole numbers
  # from -1024 to 1023, equal ones first come first served, is Python's default.
  def initialize(redis, name, order: 'score', codec: Redisq::TEXT, payload_codec: Redisq::JSON, **options)
    super(redis, name, codec: codec, **options)
    @payload_codec = payload_codec
    @settings[:order] = @order = order.to_s
  end

  # Adds a member or raises it: :added, :raised or :kept. A `payload` replaces the one that is kept with the member; nil
  # leaves it. With `replace`, score and delay become exactly these (:changed). Give a `token` to repeat the call
  # yourself.
  def add(member, score, payload: nil, **options)
    add_all([[member, score, payload]], **options).first
  end

  # The same for several members, none twice: a Hash or pairs of member and score, or all of them with a payload. How
  # many one call takes is said by the script's header: `limit('push', 'item')`.
  def add_all(scores, delay: 0, replace: false, token: Redisq.id)
    rows = scores.map { |member, score, payload| fields(member, score, payload) }
    width = rows.first&.size || 2
    raise Redisq::InvalidArgument, 'give all members a payload, or none' unless rows.all? { |row| row.size == width }

    letters = call('push', how: replace ? 'set' : 'min', delay: ms(delay), fields: width, once: token,
                           item: rows.flatten)
    letters.chars.map(&OUTCOMES)
  end

  # Removes `count` at once; nothing to ack. At most once: what is in a lost reply is gone. Where that matters,
  # reserve.
  def pop(count = 1)
    _retry, *found = call('pop', count: count)
    decoded(items(*found, handed_out: 1))
  end

  # The same by the recipe's name: members, or pairs of member and score.
  def zpop(count = 1, with_scores: false)
    pop(count).map { |item| with_scores ? [item.member, item.score] : item.member }
  end

  # The members that would leave next, from the one at place `after` on. None is taken.
  def peek(count = 1, after: 0)
    decoded(items(*call('members', state: 'ready', limit: count, start: after, after: [])))
  end

  # A page of batches that are out, the first to run out first, `limit` at most: go on with `after:` the last one's id,
  # until none come.
  def leased(limit: 100, after: nil)
    call('batches', limit: limit, after: after).map do |id, deadline, holder, *found|
      batch(id, deadline, items(*found, handed_out: 1), text(holder))
    end
  end

  # A page of members that wait for their time, the first to be due first, `limit` at most: go on with `after:` the last
  # member, until none come.
  def delayed(limit: 100, after: nil)
    members('delayed', limit, after)
  end

  # The same for dead members, the earliest first.
  def dead(limit: 100, after: nil)
    members('dead', limit, after)
  end

  # Lets dead members be ready again, at their old place. How many of them were dead.
  def redrive(*members, token: Redisq.id)
    by_member('redrive', members, token)
  end

  # Throws dead members away. How many of them were dead.
  def discard(*members, token: Redisq.id)
    by_member('discard', members, token)
  end

  # Takes members out, whatever their state. How many were there.
  def remove(*members, token: Redisq.id)
    by_member('remove', members, token)
  end

  # A Hash: members in each state, leases, and what was counted so far.
  def stats
    name_stats(STATS, call('stats'))
  end

  private

  def fields(member, score, payload)
    [score.to_s, @codec.dump(member), *(@payload_codec.dump(payload) unless payload.nil?)]
  end

  def members(state, limit, after)
    last = after.nil? ? [] : [@codec.dump(after)]
    decoded(items(*call('members', state: state, limit: limit, start: 0, after: last), timed: true))
  end

  def by_member(script, members, token)
    call(script, once: token, member: members.map { |member| @codec.dump(member) })
  end

  def read_event(event, rest, id, holder)
    case event
    when 'batch'
      deadline, *found, buried = rest
      { batch: batch(id, deadline, items(*found, handed_out: 1), holder), buried: read_buried(buried) }
    when 'none' then { retry_in: rest.first.fdiv(1000), buried: read_buried(rest.last) }
    else {}
    end
  end

  # What died is among the dead, whatever its bytes: a member that cannot be read is named by them.
  def read_buried(members)
    members.map do |bytes|
      Redisq::Buried.new(read(bytes, bytes))
    rescue Redisq::CodecError
      Redisq::Buried.new(bytes)
    end
  end

  def batch(id, deadline, found, holder)
    held = { id: id, raw: found.map(&:member), scores: found.map(&:score), attempts: found.map(&:attempts).max || 1,
             deadline: time(deadline), reason: found.map(&:reason).find { |reason| !reason.empty? } || '',
             holder: holder }
    undecoded = Redisq::Batch.new(items: held[:raw], payloads: found.map(&:payload), **held)
    read = decoded(found, undecoded)
    Redisq::Batch.new(items: read.map(&:member), payloads: read.map(&:payload), **held)
  end

  # Members with their numbers, rows ("score attempts reason") and payloads; the last two are empty where nothing is
  # known of any. A row's attempts are those before this hand-over. In a listing by time the score is in the row.
  def items(flat, rows, payloads, handed_out: 0, timed: false)
    flat.each_slice(2).with_index.map do |(member, number), i|
      score, attempts, reason = rows[i]&.split(/ /, 3)
      Item.new(member, added(timed ? score || 0 : number), attempts.to_i + handed_out, payloads[i],
               text(reason || '').scrub, (time(number.to_i) if timed))
    end
  end

  def decoded(items, raw = items)
    items.map do |item|
      payload = item.payload && read(item.payload, raw, @payload_codec)
      Item.new(read(item.member, raw), item.score, item.attempts, payload, item.reason, item.time)
    end
  end

  # A score as it was added.
  def added(score)
    @order == 'fifo' ? (Float(score) / PLACES).floor - 1024 : Float(score)
  end

  def failures(failed)
    { failed: failed.to_a.flatten }
  end
end
