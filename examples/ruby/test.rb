# frozen_string_literal: true

# Tests of the loader and of both queues: `ruby test.rb URL`. It EMPTIES the server that it is given.

require 'minitest/autorun'
require 'minitest/mock'
require_relative 'redis_buffer'
require_relative 'redis_priority_queue'
require_relative 'test/lossy'

URL = ARGV.shift or abort "usage: ruby #{$PROGRAM_NAME} URL; the server is emptied"

# A client of an empty server for each test.
class RedisqTest < Minitest::Test
  def setup
    @redis = Redis.new(url: URL)
    @redis.flushall
  end

  def teardown
    @redis.close
  end

  # What the block gives, with a client whose waits are ended by a wake-up alone; `event` is called once it is blocked.
  def woken(event)
    client = Redis.new(url: URL)
    client.define_singleton_method(:blpop) { |key, **| super(key, timeout: 60) or raise 'no wake-up came' }
    waiting = Thread.new { yield client }
    Thread.pass until @redis.info('clients')['blocked_clients'] == '1'
    event.call
    waiting.value
  end
end

class ScriptsTest < RedisqTest
  KEYS = %w[meta groups busy paused_groups guard].map { |name| "redisq:{q}:#{name}" }.freeze
  ARGUMENTS = ['waiting', 1, 0].freeze

  def test_a_server_that_forgot_the_scripts_is_told_again
    scripts = Redisq::Scripts.new(@redis)
    2.times do
      assert_equal [0, []], scripts.call('buffer/groups', KEYS, ARGUMENTS)
      @redis.script(:flush)
    end
  end

  def test_refusals_are_exceptions_that_name_the_script
    scripts = Redisq::Scripts.new(@redis)
    error = assert_raises(Redisq::InvalidArgument) { scripts.call('buffer/groups', KEYS, ["\xFF".b, 1, 0]) }
    assert_kind_of ArgumentError, error
    assert_kind_of Redisq::Error, error
    assert_match(%r{\Abuffer/groups: }, error.message)
    @redis.hset('redisq:{q}:meta', 'queue', '3 buffer')
    assert_raises(Redisq::WrongLayout) { scripts.call('buffer/groups', KEYS, ARGUMENTS) }
  end

  def test_errors_of_the_server_pass_through
    @redis.set('redisq:{q}:groups', 'text')
    error = assert_raises(Redis::CommandError) { Redisq::Scripts.new(@redis).call('buffer/groups', KEYS, ARGUMENTS) }
    assert_includes error.message, 'WRONGTYPE'
    assert_raises(KeyError) { Redisq::Scripts.new(@redis).call('buffer/nothing', KEYS, []) }
  end

  def test_a_call_is_made_by_the_names_of_the_header
    push = Redisq::Scripts.new(@redis)['buffer/push']
    values = { group: 'eu', once: 't', side: 'back', window: 5, item: %w[a b] }
    keys = %w[meta groups since items:eu once:t wake].map { |name| "{q}:#{name}" }
    assert_equal [keys, ['eu', 'back', 5, nil, 'a', 'b']], push.command('{q}:'.b, values)
    error = assert_raises(KeyError) { push.command('{q}:'.b, values.except(:side)) }
    assert_equal :side, error.key
    release = Redisq::Scripts.new(@redis)['buffer/release']
    values = { id: 'l', delay: 7, window: 8, attempt: 'count', reason: nil }
    assert_equal ['l', '7 8', 'count', nil, nil], release.command('{q}:'.b, values).last
    assert_equal 999_999_999, release.limit('window')
  end

  def test_ids_come_from_the_operating_system
    Random.stub(:urandom, "\xAB".b * 16) { assert_equal 'ab' * 16, Redisq.id }
    refute_equal Redisq.id, Redisq.id
  end

  def test_the_queues_of_a_server
    assert_empty Redisq.queues(@redis)
    RedisBuffer.new(@redis, "ö\n*").push(1)
    %w[fifo score].each { |order| RedisPriorityQueue.new(@redis, order, order: order).add('a', 1) }
    RedisBuffer.new(@redis, "\xFF".b, prefix: 'é[b]*?\\').push(1)
    RedisBuffer.new(@redis, 'other', prefix: 'ébxx').push(1)
    @redis.set('redisq:{text}:meta', 'x')
    %w[{more}:{braces} {}].each { |name| @redis.hset("redisq:#{name}:meta", 'queue', '2 buffer') }
    @redis.hset('redisq:{mine}:meta', 'queue', 'mine')
    @redis.hset('redisq:{newer}:meta', 'queue', '3 buffer')
    found = [['fifo', 'fifo', 2], ['newer', 'buffer', 3], ['score', 'score', 2], ["ö\n*", 'buffer', 2]]
    assert_equal found, Redisq.queues(@redis).map(&:to_a)
    assert_equal ["\xFF".b], Redisq.queues(@redis, prefix: 'é[b]*?\\').map { |queue| queue.name.b }
    2500.times { |i| @redis.hset("redisq:{q#{i}}:meta", 'queue', '2 buffer') }
    assert_equal 2504, Redisq.queues(@redis).size
    twice = ['redisq:{fifo}:meta'] * 2 # as a scan may give it
    @redis.stub(:scan_each, twice.each) { assert_equal %w[fifo], Redisq.queues(@redis).map(&:name) }
    assert_raises(Redisq::InvalidArgument) { Redisq.queues(@redis, prefix: '{q}') }
  end
end

class RedisBufferTest < RedisqTest
  def setup
    super
    @buffer = RedisBuffer.new(@redis, 'q')
  end

  def test_the_recipe
    assert_equal 3, @buffer.push(1, { 'b' => [nil, true], a: 'é' }, 'x', group: 'eu')
    assert_equal 2, @buffer.push(4, 5, group: :us)
    assert_equal %w[eu us], @buffer.longest_groups(5)
    assert_equal({ 'eu' => 3 }, @buffer.groups(1))
    assert_equal({ 'eu' => 3, 'us' => 2 }, @buffer.groups)
    assert_equal [1, { 'a' => 'é', 'b' => [nil, true] }], @buffer.next_batch_for(group: 'eu', size: 2)
    assert_equal 3, @buffer.return_batch_to([1, 2], group: 'eu')
    assert_equal [1, 2, 'x'], @buffer.next_batch_for(group: 'eu')
    assert_equal [], @buffer.next_batch_for(group: 'eu')
    assert_equal %w[us], @buffer.longest_groups
  end

  def test_payloads_come_out_as_they_went_in
    ['é', "\0\r\n", '', 'x' * 3_000_000, 2**80, -1.5, nil, [], {}, { 'a' => { 'b' => [] } }].each do |item|
      @buffer.push(item)
      assert_equal [item], @buffer.next_batch_for
    end
    assert_equal Encoding::UTF_8, @buffer.push('é') && @buffer.next_batch_for.first.encoding
    nested = 500.times.reduce(1) { |inner, _| [inner] }
    @buffer.push(nested)
    assert_equal [nested], @buffer.next_batch_for
    assert_equal '{"a":[{"b":"é","c":1}],"z":"/"}'.b, Redisq::JSON.dump({ z: '/', 'a' => [{ c: 1, 'b' => 'é' }] })
  end

  def test_bytes_and_names_of_any_kind
    bytes = RedisBuffer.new(@redis, 'ö', codec: Redisq::BYTES)
    group = "\xFF:é".b
    everything = (0..255).to_a.pack('C*')
    bytes.push(everything, '', 'é', group: group)
    assert_equal [group], bytes.longest_groups.map(&:b)
    batch = bytes.reserve
    assert_equal [group, everything, '', 'é'.b], [batch.group.b, *batch.items]
    assert_equal Encoding::BINARY, batch.items.first.encoding
    assert_equal 3, bytes.return_batch_to(batch.items, group: batch.group) # as it came out
    assert_equal [group], bytes.longest_groups.map(&:b)
  end

  def test_as_many_at_once_as_the_header_says_and_no_more
    most = @buffer.limit('push', 'item')
    assert_equal most, @buffer.push(*1..most)
    assert_equal (1..most).to_a, @buffer.next_batch_for(size: @buffer.limit('pop', 'size'))
    assert_raises(Redisq::InvalidArgument) { @buffer.push(*0..most) }
    assert_empty @buffer.longest_groups
  end

  def test_reserve_ack_release
    @buffer.push(1, 2, 2, 3)
    batch = @buffer.reserve(size: 3)
    assert_equal ['default', [1, 2, 2], 1], [batch.group, batch.items, batch.attempts]
    assert_in_delta Time.now + 30, batch.deadline, 5
    assert_equal 3, @buffer.release(batch)
    batch = @buffer.reserve(size: 1)
    assert_equal [[1, 2, 2], 2], [batch.items, batch.attempts]
    batch.fail(2)
    assert_equal 2, @buffer.ack(batch)
    assert_equal 2, @buffer.ack(batch) # sent twice, done once
    assert_raises(Redisq::LeaseLost) { @buffer.release(batch) }
    assert_equal [2], @buffer.reserve.items
    assert_equal [3], @buffer.reserve.items
    assert_nil @buffer.reserve
  end

  def test_marking_what_is_not_there
    @buffer.push(1, 1)
    batch = @buffer.reserve
    batch.fail(1, 1)
    assert_raises(Redisq::InvalidArgument) { batch.fail(1) }
    assert_equal [0, 1], batch.failed.keys
  end

  def test_a_block_is_acked_and_given_back_when_it_is_left_otherwise
    @buffer.push(1)
    assert_raises(RuntimeError) { @buffer.reserve { raise 'no' } }
    @buffer.reserve { break }
    assert_equal 3, @buffer.reserve { |batch| assert_equal [1], batch.items }.attempts
    assert_nil @buffer.reserve { flunk }
    assert_empty @redis.zrange('redisq:{q}:leases', 0, -1)
  end

  def test_a_crash_gives_the_batch_to_the_next_once_its_lease_is_over
    @buffer.push('work')
    late = @buffer.reserve(lease: 0.05)
    assert_nil @buffer.reserve
    batch = @buffer.reserve(timeout: 5)
    assert_equal [['work'], 2], [batch.items, batch.attempts]
    assert_raises(Redisq::LeaseLost) { @buffer.ack(late) }
    assert_operator @buffer.renew(batch, lease: 90), :>, batch.deadline
    assert_equal 1, @buffer.ack(batch)
  end

  def test_a_push_wakes_a_client_that_waits
    batch = woken(-> { @buffer.push(1) }) { |client| RedisBuffer.new(client, 'q').reserve(timeout: 60) }
    assert_equal [1], batch.items
    assert_equal 0, @redis.llen('redisq:{q}:wake') # it took the wake-up
    assert_nil @buffer.reserve(timeout: 0.05)
  end

  def test_nothing_leaves_a_queue_that_is_paused
    @buffer.push(1, 2)
    batch = @buffer.reserve(size: 1)
    assert_nil @buffer.pause(reason: 'déjà vu')
    assert_equal [true, 'déjà vu', nil], @buffer.stats.values_at(:paused, :pause_reason, :paused_until)
    assert_nil @buffer.reserve(timeout: 0.01)
    assert_empty @buffer.next_batch_for
    assert_equal 2, @buffer.push(3)
    assert_equal 1, @buffer.ack(batch)
    assert_equal [true, false], Array.new(2) { @buffer.resume }
    assert_equal [2, 3], @buffer.reserve.items
    @buffer.pause(60)
    assert_in_delta Time.now + 60, @buffer.stats[:paused_until], 5
    @buffer.pause(0.05) # the last one counts
    @buffer.push(4)
    assert_equal [4], @buffer.reserve(timeout: 5).items
    [0, 0.0001, -1].each { |seconds| assert_raises(Redisq::InvalidArgument) { @buffer.pause(seconds) } }
    refute @buffer.stats[:paused]
  end

  def test_a_resume_wakes_a_client_that_waits
    @buffer.pause
    @buffer.push(1)
    batch = woken(-> { @buffer.resume }) { |client| RedisBuffer.new(client, 'q').reserve(timeout: 60) }
    assert_equal [1], batch.items
    @buffer.pause_group('default')
    @buffer.push(2)
    batch = woken(-> { @buffer.resume_group('default') }) { |client| RedisBuffer.new(client, 'q').reserve(timeout: 60) }
    assert_equal [2], batch.items
  end

  def test_a_group_that_is_paused_gives_no_new_batch
    @buffer.push(1, 2, group: 'eu')
    @buffer.release(@buffer.reserve(size: 1))
    @buffer.push(3, group: 'us')
    assert_nil @buffer.pause_group('eu')
    assert_equal [{ 'us' => 1 }, { 'eu' => 1 }], [@buffer.groups, @buffer.groups(state: 'paused')]
    assert_equal [[1], [3], nil], Array.new(3) { @buffer.reserve&.items } # what was handed out is retried
    assert_empty @buffer.next_batch_for(group: 'eu')
    assert_equal [true, false], Array.new(2) { @buffer.resume_group('eu') }
    assert_equal [2], @buffer.reserve.items
    @buffer.push(4, group: 'eu')
    @buffer.pause_group('eu', 0.05)
    assert_equal [4], @buffer.reserve(timeout: 5).items
    assert_raises(Redisq::InvalidArgument) { @buffer.pause_group('eu', 0) }
    (1..1100).each { |i| @buffer.call('pause_group', group: "g#{i}", once: Redisq.id, duration: 0) }
    @buffer.push(5, group: 'g1050')
    @buffer.push(6, 7, group: 'g7')
    assert_equal [['g7', 2], ['g1050', 1]], @buffer.groups(2, state: 'paused').to_a
    assert_equal 1100, @buffer.groups(2000, state: 'paused').size
  end

  def test_a_group_is_dropped
    @buffer.push(*1..605, group: 'eu')
    600.times { |i| @buffer.bury(@buffer.reserve(size: 1, id: "dead#{i}")) }
    @buffer.release(@buffer.reserve(size: 2), delay: 60)
    batch = @buffer.reserve(size: 1)
    @buffer.push(7, group: 'us')
    assert_equal 604, @buffer.drop_group('eu', token: 'mine') # more batches than one call looks at
    assert_equal 604, @buffer.drop_group('eu', token: 'mine')
    assert_equal 1, @buffer.ack(batch)
    assert_equal 0, @buffer.drop_group('eu')
    assert_equal [{ 'us' => 1 }, 0, 0], [@buffer.groups, *@buffer.stats.values_at(:dead, :delayed)]
  end

  def test_what_waits_is_shown
    @buffer.push(*1..5, group: 'eu')
    assert_equal [[1], []], [@buffer.peek(group: 'eu'), @buffer.peek]
    assert_equal [3, 4], @buffer.peek(2, group: 'eu', after: 2)
    assert_equal [5], @buffer.peek(@buffer.limit('peek', 'count'), group: 'eu', after: 4)
    assert_equal({ 'eu' => 5 }, @buffer.groups)
  end

  def test_batches_that_are_out_or_wait_for_a_retry
    @buffer.push(*1..4)
    batch = @buffer.reserve(size: 1, id: 'a', lease: 10, holder: 'me')
    @buffer.reserve(size: 1, id: 'b', lease: 20)
    %w[c d].each do |id|
      @buffer.release(@buffer.reserve(size: 1, id: id, holder: 'me'), delay: id.ord, reason: "#{id}!")
    end
    one = @buffer.leased(limit: 1).first
    assert_equal [batch.deadline, 'a', 'default', [1], 1, '', 'me'],
                 [one.deadline, one.id, one.group, one.items, one.attempts, one.reason, one.holder]
    assert_equal [%w[b], []], [@buffer.leased(after: 'a'), @buffer.leased(after: 'b')].map { |page| page.map(&:id) }
    two = @buffer.delayed(after: 'c').first
    assert_equal ['d', [4], 1, 'd!', 'me'], [two.id, two.items, two.attempts, two.reason, two.holder]
    assert_in_delta Time.now + 100, two.deadline, 5
    assert_equal %w[c d], @buffer.delayed.map(&:id)
  end

  def test_options_are_what_the_others_agreed_on
    strict = RedisBuffer.new(@redis, 'q', min_size: 2, rates: [[1, 0.3], [5, 3600]])
    strict.push(1)
    assert_nil strict.reserve
    strict.push(2)
    assert_equal [1], strict.reserve(size: 1).items
    strict.push(3)
    assert_nil strict.reserve # the rate
    assert_equal [2, 3], strict.reserve(timeout: 5).items
    ordered = RedisBuffer.new(@redis, 'o', ordered: true)
    ordered.push(1, 2)
    batch = ordered.reserve(size: 1)
    assert_nil ordered.reserve
    ordered.ack(batch)
    assert_equal [2], ordered.reserve.items
    isolating = RedisBuffer.new(@redis, 'i', max_attempts: 1, isolate: true)
    isolating.push(1, 2)
    isolating.release(isolating.reserve)
    assert_equal [1], isolating.reserve.items
    capped = RedisBuffer.new(@redis, 'c', max_dead: 1)
    capped.push(1, 2)
    2.times { capped.bury(capped.reserve(size: 1)) }
    assert_equal [[2]], capped.dead.map(&:items)
    assert_raises(Redisq::InvalidArgument) { RedisBuffer.new(@redis, 'q', min_size: 2, max_wait: nil) }
    assert_raises(Redisq::InvalidArgument) { RedisBuffer.new(@redis, 'a{b}') }
  end

  def test_the_events_of_a_reserve
    @buffer.push(1, 2)
    once = RedisBuffer.new(@redis, 'q', max_attempts: 1)
    event = once.reserve_once(size: 1, id: 'a')
    assert_equal [[1], 0, [], false], [event.batch.items, event.retry_in, event.buried, event.ended]
    once.release(event.batch, reason: 'no')
    event = once.reserve_once
    assert_equal [nil, 0, false], [event.batch, event.retry_in, event.ended]
    assert_equal [['a', 'default', 1, 'no']], event.buried.map(&:to_a)
    once.reserve_once(size: 1)
    event = once.reserve_once(lease: 0.5)
    assert_nil event.batch
    assert_in_delta 0.5, event.retry_in, 0.001 # never later than a lease of this length would run out
    assert once.reserve_once(id: 'a').ended
    assert_nil once.reserve(id: 'a', timeout: 60)
  end

  def test_a_burial_is_told_of_and_the_next_batch_comes_at_once
    told = []
    once = RedisBuffer.new(@redis, 'q', max_attempts: 1, on_buried: told.method(:push))
    once.push(1, 2)
    once.release(once.reserve(size: 1, id: 'a'))
    assert_equal [2], once.reserve.items # without waiting
    assert_equal ['a'], told.map(&:name)
  end

  def test_a_batch_knows_why_it_came_back_and_who_held_it
    @buffer.push(1, 2)
    batch = @buffer.reserve(size: 1)
    assert_equal ['', "#{Socket.gethostname}:#{Process.pid}"], [batch.reason, batch.holder]
    child = fork { exit!(Redisq.holder == "#{Socket.gethostname}:#{Process.pid}") }
    assert_predicate Process.wait2(child).last, :success?
    @buffer.release(batch, reason: "déjà #{'x' * 2000}")
    batch = @buffer.reserve(size: 1, holder: 'me')
    assert_equal ['me', 2, 1000], [batch.holder, batch.attempts, batch.reason.bytesize]
    assert batch.reason.start_with?('déjà xx')
    @buffer.release(batch, count: false)
    batch = @buffer.reserve(size: 1)
    assert_equal 2, batch.attempts
    batch.fail(1, reason: 'bad')
    @buffer.ack(batch)
    assert_equal 'bad', @buffer.reserve(size: 1).reason
  end

  def test_a_delay
    @buffer.push(1, 2)
    batch = @buffer.reserve(size: 1)
    batch.fail(1)
    @buffer.ack(batch, delay: 3600)
    @buffer.release(@buffer.reserve, delay: 3600)
    ahead = @redis.zrange('redisq:{q}:delayed', 0, -1, with_scores: true).map { |_, due| due - (Time.now.to_f * 1000) }
    assert_equal 2, ahead.size
    assert_operator ahead.min, :>, 1_800_000
  end

  def test_why_a_block_was_left
    @buffer.push(1)
    assert_raises(RuntimeError) { @buffer.reserve { raise 'no' } }
    assert_equal 'RuntimeError: no', @buffer.reserve.reason
  end

  def test_max_bytes
    @buffer.push('ab', 'cd', 'ef')
    assert_equal [%w[ab cd], %w[ef]], Array.new(2) { @buffer.reserve(max_bytes: 9).items }
  end

  def test_dead_letters
    started = Time.now.floor(3)
    @buffer.push(*1..3)
    ids = %w[a b c].each { |id| @buffer.bury(@buffer.reserve(size: 1, id: id), reason: "#{id}!") }
    assert_equal [[[1], 'a!'], [[2], 'b!']], @buffer.dead(limit: 2).map { |batch| [batch.items, batch.reason] }
    assert_equal [[3]], @buffer.dead(after: ids[1]).map(&:items)
    assert_equal Redisq.holder, @buffer.dead.first.holder
    assert_includes started..Time.now, @buffer.dead.first.deadline
    assert_equal 1, @buffer.discard(ids[1], 'none')
    assert_equal 2, @buffer.redrive(ids[2], ids[0], ids[1])
    assert_equal [3, 1], @buffer.next_batch_for
    assert_empty @buffer.dead
  end

  def test_more_than_one_call_redrives_and_the_order_holds
    @buffer.push(*1..600)
    ids = Array.new(600) { |i| @buffer.reserve(size: 1, id: i.to_s).id }
    ids.each { |id| @buffer.call('bury', id: id, reason: nil) }
    pages = [@buffer.dead]
    pages << @buffer.dead(after: pages.last.last.id) until pages.last.empty?
    assert_equal ids.sort, pages.flatten.map(&:id).sort
    assert_equal 600, @buffer.redrive(*ids)
    assert_equal (1..600).to_a, @buffer.next_batch_for
    most = @buffer.limit('reserve', 'size')
    ids = %w[a b c d].each_with_index do |id, i|
      @buffer.push(*[i] * most)
      @buffer.bury(@buffer.reserve(size: most, id: id))
    end
    assert_equal 4, @buffer.redrive(*ids) # more items than one call takes
    assert_equal [0, 1, 2, 3], Array.new(4) { @buffer.next_batch_for(size: most).uniq }.flatten
  end

  def test_stats
    started = Time.now.floor(3)
    @buffer.push(*1..4)
    @buffer.bury(@buffer.reserve(size: 1))
    @buffer.ack(@buffer.reserve(size: 1))
    batch = @buffer.reserve(size: 1)
    stats = @buffer.stats
    expected = { waiting: 1, groups: 1, leased: 1, delayed: 0, dead: 1, done: 1, failed: 0, buried: 1, trimmed: 0 }
    assert_equal expected, stats.slice(*expected.keys)
    assert_equal batch.deadline, stats[:next_expiry]
    assert_includes 0..(Time.now - started), stats[:oldest_wait]
    assert_equal [false, '', nil], stats.values_at(:paused, :pause_reason, :paused_until)
    assert_equal [nil, nil], RedisBuffer.new(@redis, 'r').stats.values_at(:oldest_wait, :next_expiry)
  end

  def test_any_number_of_groups
    @redis.pipelined { |pipe| 2100.times { |i| pipe.eval(*push_command(i)) } }
    assert_equal 2100, @buffer.groups(3000).size
    assert_equal 1500, @buffer.groups(1500).size
    assert_equal 2100, @buffer.stats[:waiting]
  end

  # A call for a pipeline of one's own.
  def push_command(group)
    @buffer.command('push', group: group, side: 'back', once: Redisq.id, item: [Redisq::JSON.dump(1)])
  end

  def test_any_other_script
    @buffer.push(1, 2)
    assert_equal [-1, 2], @buffer.call('purge', limit: 10, cursor: 0)
    assert_raises(KeyError) { @buffer.call('purge', limit: 10) }
  end

  def test_what_cannot_be_read_is_not_lost
    RedisBuffer.new(@redis, 'q', codec: Redisq::BYTES).push('1', '{')
    error = assert_raises(Redisq::CodecError) { @buffer.reserve }
    assert_equal %w[1 {], error.raw.items
    assert_equal 2, @buffer.release(error.raw)
    RedisBuffer.new(@redis, 'q', codec: Redisq::BYTES).push('1', '{')
    assert_equal %w[1 {], assert_raises(Redisq::CodecError) { @buffer.next_batch_for }.raw
    assert_raises(::JSON::GeneratorError) { @buffer.push(1, Float::NAN) }
    assert_empty @buffer.longest_groups
  end

  def test_a_lone_surrogate_is_refused_and_not_lost
    bytes = RedisBuffer.new(@redis, 'q', codec: Redisq::BYTES)
    lone = ['"\\ud800"', '"\\uDBFF\\u0041"', '["\\n\\\\\\udc00é"]', '{"\\ud83d\\ude00\\udfff":1}', '"\\udc00\\ud800"']
    lone.each do |item|
      bytes.push('1', item)
      assert_equal ['1', item.b], assert_raises(Redisq::CodecError) { @buffer.next_batch_for }.raw
      bytes.push(item)
      raw = assert_raises(Redisq::CodecError) { @buffer.reserve }.raw
      @buffer.release(raw)
      bytes.reserve { |batch| assert_equal [item.b], batch.items }
      assert_raises(::JSON::GeneratorError) { @buffer.push("\xED\xA0\x80") }
    end
    ['"\\ud83d\\ude00"', '"\\\\ud800"', '"\\\\\\uD83D\\uDE00\\\\ude00"'].each do |item|
      bytes.push(item)
      assert_equal [::JSON.parse(item)], @buffer.next_batch_for
    end
  end
end

class RedisPriorityQueueTest < RedisqTest
  def setup
    super
    @queue = RedisPriorityQueue.new(@redis, 'q')
  end

  def test_the_recipe
    assert_equal :added, @queue.add('b', 2.5)
    assert_equal %i[added added], @queue.add_all({ 'a' => 7, 3 => -1e300 })
    assert_equal :raised, @queue.add('a', 0.1)
    assert_equal :kept, @queue.add('a', 9)
    assert_equal [['3', -1e300], ['a', 0.1]], @queue.zpop(2, with_scores: true)
    assert_equal ['b'], @queue.zpop
    assert_equal [], @queue.zpop(10)
    assert_raises(Redisq::InvalidArgument) { @queue.add('a', Float::INFINITY) }
    assert_raises(Redisq::InvalidArgument) { @queue.add(nil, 1) }
  end

  def test_the_recipes_own_sorted_set_is_taken_as_it_is
    @redis.zadd('index', [[2, 'b'], [1.5, 'ä']])
    @redis.rename('index', 'redisq:{q}:ready')
    assert_equal :raised, @queue.add('b', 1)
    assert_equal [['b', 1.0], ['ä', 1.5]], @queue.zpop(2, with_scores: true)
  end

  def test_fifo
    fifo = RedisPriorityQueue.new(@redis, 'q', order: :fifo)
    fifo.add_all([['z', -3], ['b', 5], ['a', 5]])
    assert_equal [['z', -3], ['b', 5], ['a', 5]], fifo.zpop(3, with_scores: true)
    assert_raises(Redisq::InvalidArgument) { fifo.add('a', 1024) }
    fifo.add('a', 1)
    assert_raises(Redisq::WrongOrder) { @queue.add('a', 1) }
    assert_raises(Redisq::WrongOrder) { @queue.zpop }
  end

  def test_reserve_ack_release
    @queue.add_all({ 'a' => 1, 'b' => 2, 'c' => 3 })
    batch = @queue.reserve(size: 2)
    assert_equal [nil, %w[a b], [1.0, 2.0], [nil, nil], 1],
                 [batch.group, batch.items, batch.scores, batch.payloads, batch.attempts]
    assert_equal :added, @queue.add('a', 9) # noted: once more after the ack
    batch.fail('b', reason: 'bad')
    assert_equal 1, @queue.ack(batch)
    assert_equal 1, @queue.ack(batch) # sent twice, done once
    batch = @queue.reserve
    assert_equal [%w[b], 'bad', 2], [batch.items, batch.reason, batch.attempts]
    assert_equal 1, @queue.release(batch, count: false, reason: 'later')
    assert_equal [['b', 2.0, 2, nil, 'later', nil]], @queue.pop.map(&:to_a)
    assert_equal [['c', 3.0], ['a', 9.0]], @queue.zpop(5, with_scores: true)
    assert_raises(Redisq::LeaseLost) { @queue.renew(batch) }
    @queue.add('d', 1)
    assert_equal 1, @queue.release(batch = @queue.reserve)
    assert_raises(Redisq::LeaseLost) { @queue.ack(batch) }
    @queue.reserve { |again| assert_equal [['d'], 2], [again.items, again.attempts] }
    assert_nil @queue.reserve
  end

  def test_payloads
    assert_equal :added, @queue.add('a', 1, payload: { 'v' => 1 })
    assert_equal :kept, @queue.add('a', 2) # and so is the payload
    assert_equal %i[added added], @queue.add_all([['b', 2, [2]], ['c', 3, false]])
    assert_raises(Redisq::InvalidArgument) { @queue.add_all([['d', 1], ['e', 2, 5], ['7', 3, 6]]) }
    assert_equal [{ 'v' => 1 }, [2]], @queue.reserve(size: 2, max_bytes: 20).payloads
    assert_equal [false], @queue.pop.map(&:payload)
    assert_nil @queue.reserve(timeout: 0.01)
  end

  def test_replace
    @queue.add('a', 1)
    assert_equal :changed, @queue.add('a', 5, replace: true)
    assert_equal :kept, @queue.add('a', 5, replace: true)
    assert_equal [['a', 5.0]], @queue.zpop(1, with_scores: true)
  end

  def test_dead_members_and_the_events_of_a_reserve
    told = []
    started = Time.now.floor(3)
    fifo = RedisPriorityQueue.new(@redis, 'q', order: 'fifo', max_attempts: 1, on_buried: told.method(:push))
    fifo.add_all([['a', -3, 'p'], ['b', 7, 'q']])
    2.times { fifo.release(fifo.reserve, reason: 'not now') } # the second one buries the first one's
    assert_equal %w[a], told.map(&:name)
    event = fifo.reserve_once(lease: 0.5)
    assert_equal [nil, %w[b], false], [event.batch, event.buried.map(&:name), event.ended]
    assert_in_delta 0.5, event.retry_in, 0.001
    item = fifo.dead.first
    assert_equal ['a', -3, 1, 'p', 'not now'], item.to_a.first(5)
    assert_includes started..Time.now, item.time
    assert_equal [%w[b], %w[a]], [fifo.dead(after: 'a'), fifo.dead(limit: 1)].map { |page| page.map(&:member) }
    assert_equal [1, 1, 1], [fifo.redrive('a', 'none'), fifo.discard('b', 'a'), fifo.remove('a')]
    assert_empty fifo.dead
    fifo.add('c', 1)
    fifo.bury(fifo.reserve(id: 'l'), reason: 'broken')
    assert_equal [['c', 'broken']], fifo.dead.map { |one| [one.member, one.reason] }
    assert fifo.reserve_once(id: 'l').ended
    fifo.redrive('c')
    fifo.release(fifo.reserve)
    assert_nil fifo.reserve
    assert_equal %w[a c], told.map(&:name)
    expected = { waiting: 0, delayed: 0, leased: 0, dead: 1, batches: 0, due: 0, next_expiry: nil, done: 0, failed: 3,
                 buried: 4, trimmed: 0, paused: false, pause_reason: '', paused_until: nil }
    assert_equal expected, fifo.stats
  end

  def test_a_pause
    @queue.add_all({ 'a' => 1, 'b' => 2 })
    batch = @queue.reserve
    assert_nil @queue.pause(60, reason: 'no')
    assert_nil @queue.reserve
    assert_empty @queue.pop
    assert_equal [true, 'no'], @queue.stats.values_at(:paused, :pause_reason)
    @queue.ack(batch)
    @queue.add('c', 1)
    batch = woken(-> { assert_equal [true, false], Array.new(2) { @queue.resume } }) do |client|
      RedisPriorityQueue.new(client, 'q').reserve(size: 2, timeout: 60)
    end
    assert_equal %w[c b], batch.items
  end

  def test_members_in_each_state_are_shown
    fifo = RedisPriorityQueue.new(@redis, 'q', order: 'fifo')
    fifo.add_all([['a', -3, 'p'], ['b', 7, 'q'], ['c', 9, 'r'], ['d', 9, 's']])
    batch = fifo.reserve(size: 2, lease: 10, id: 'l', holder: 'me')
    fifo.ack(batch.tap { |one| one.fail('a', reason: 'no') }, delay: 60)
    batch = fifo.reserve(id: 'l1', lease: 10, holder: 'me')
    assert_equal [['d', 9, 0, 's', '', nil]], fifo.peek(5).map(&:to_a)
    assert_equal [[], %w[d]], [fifo.peek(after: 1), fifo.peek].map { |page| page.map(&:member) }
    one = fifo.leased.first
    assert_equal [batch.deadline, 'l1', %w[c], [9], ['r'], 1, '', 'me'],
                 [one.deadline, one.id, one.items, one.scores, one.payloads, one.attempts, one.reason, one.holder]
    fifo.reserve(id: 'l2', lease: 20)
    pages = [fifo.leased(limit: 1), fifo.leased(after: 'l1'), fifo.leased(after: 'l2')]
    assert_equal [%w[l1], %w[l2], []], pages.map { |page| page.map(&:id) }
    @redis.del('redisq:{q}:lease:l2') # as a server does that evicts
    assert_equal [[], 1, ''], fifo.leased.last.then { |one| [one.items, one.attempts, one.holder] }
    fifo.add('e', 5, delay: 90)
    two = fifo.delayed.first
    assert_equal ['a', -3, 1, 'p', 'no'], two.to_a.first(5)
    assert_in_delta Time.now + 60, two.time, 5
    assert_equal [%w[e], %w[a]], [fifo.delayed(after: 'a'), fifo.delayed(limit: 1)].map { |page| page.map(&:member) }
  end

  def test_a_lease_is_lost_as_a_whole
    @queue.add_all({ 'a' => 1, 'b' => 2 })
    batch = @queue.reserve(size: 2)
    @queue.remove('b')
    assert_equal 1, @queue.ack(batch) # what was removed is not counted
    @queue.add('a', 1)
    batch = @queue.reserve(lease: 0.01)
    assert @queue.reserve(timeout: 5)
    assert_raises(Redisq::LeaseLost) { @queue.ack(batch) }
  end

  def test_a_delay_and_a_crash_are_waited_for
    @queue.add('a', 1, delay: 0.05)
    assert_nil @queue.reserve
    batch = @queue.reserve(timeout: 5, lease: 0.05)
    again = @queue.reserve(timeout: 5)
    assert_equal [%w[a], 2], [again.items, again.attempts]
    assert_raises(Redisq::LeaseLost) { @queue.ack(batch) }
    assert_operator @queue.renew(again, lease: 90), :>, again.deadline
    assert_equal 1, @queue.ack(again)
  end

  def test_a_dead_member_that_cannot_be_read_is_named_by_its_bytes
    bytes = RedisPriorityQueue.new(@redis, 'q', codec: Redisq::BYTES)
    bytes.add("\xFF".b, 1)
    bytes.release(bytes.reserve)
    assert_equal ["\xFF".b], RedisPriorityQueue.new(@redis, 'q', max_attempts: 1).reserve_once.buried.map(&:name)
  end

  def test_members_are_told_apart_by_their_bytes
    json = RedisPriorityQueue.new(@redis, 'q', codec: Redisq::JSON)
    assert_equal :added, json.add({ b: 1, a: 2 }, 5)
    assert_equal :kept, json.add({ 'a' => 2, 'b' => 1 }, 5)
    bytes = RedisPriorityQueue.new(@redis, 'q', codec: Redisq::BYTES)
    bytes.add("\xFF\0".b, 1)
    error = assert_raises(Redisq::CodecError) { @queue.reserve }
    assert_equal ["\xFF\0".b], error.raw.items
    assert_equal 1, @queue.release(error.raw)
    assert_equal ["\xFF\0".b], assert_raises(Redisq::CodecError) { @queue.pop }.raw.map(&:member)
    bytes.add("\xFF\0".b, 1)
    assert_equal ["\xFF\0".b], bytes.zpop
    assert_equal [{ 'a' => 2, 'b' => 1 }], json.zpop
  end
end

# redis-rb sends a command again when its reply is lost: the same bytes, so the same id, so it takes effect once.
class ResendTest < RedisqTest
  def through
    proxy = Lossy.new(URL)
    client = Redis.new(url: proxy.url)
    client.ping
    yield client, proxy
  ensure
    client&.close
    proxy&.close
  end

  # Loses the reply of what the block does, and sees that the client sent it twice.
  def twice(proxy)
    sent = proxy.lose_reply { yield }
    assert_equal [2, 1], [sent.size, sent.uniq.size]
  end

  def test_a_push_is_done_once
    through do |client, proxy|
      buffer = RedisBuffer.new(client, 'q')
      buffer.push(0) # the script is known
      twice(proxy) { assert_equal 3, buffer.push(1, 2) }
      twice(proxy) { assert_equal 4, buffer.return_batch_to([9]) }
      assert_equal [9, 0, 1, 2], buffer.next_batch_for
    end
  end

  def test_an_add_is_done_once
    through do |client, proxy|
      queue = RedisPriorityQueue.new(client, 'p')
      queue.add('a', 5)
      twice(proxy) { assert_equal :raised, queue.add('a', 1) } # and not kept, as a second one would be
    end
  end

  def test_a_reserve_gives_the_same_batch_and_an_ack_the_same_answer
    through do |client, proxy|
      [RedisBuffer.new(client, 'q').tap { |queue| queue.push(*1..4) },
       RedisPriorityQueue.new(client, 'p').tap { |queue| queue.add_all(%w[a b c d].zip([1] * 4)) }].each do |queue|
        2.times { queue.ack(queue.reserve(size: 1)) } # the scripts are known
        batch = nil
        twice(proxy) { batch = queue.reserve(size: 1) }
        assert_equal 1, batch.attempts
        twice(proxy) { assert_equal 1, queue.ack(batch) }
        batch = queue.reserve
        assert_equal 1, batch.attempts
        queue.ack(batch)
        assert_nil queue.reserve
      end
    end
  end

  def test_a_resume_and_a_drop_are_done_once
    through do |client, proxy|
      buffer = RedisBuffer.new(client, 'q')
      queues = [buffer, RedisPriorityQueue.new(client, 'p')]
      queues.each { |queue| 2.times { queue.resume } } # the scripts are known
      queues.each(&:pause)
      queues.each { |queue| twice(proxy) { assert queue.resume } }
      buffer.resume_group('eu')
      buffer.pause_group('eu')
      twice(proxy) { assert buffer.resume_group('eu') }
      buffer.drop_group('eu')
      buffer.push(1, 2, group: 'eu')
      twice(proxy) { assert_equal 2, buffer.drop_group('eu') }
    end
  end

  def test_a_token_makes_a_call_repeatable_when_redis_rb_gives_up
    through do |client, proxy|
      buffer = RedisBuffer.new(client, 'q')
      buffer.push(0)
      proxy.lose_reply do
        client.without_reconnect do
          assert_raises(Redis::BaseConnectionError) { buffer.push(1, token: 'mine') }
        end
      end
      assert_equal 2, buffer.push(1, token: 'mine')
      assert_equal [0, 1], buffer.next_batch_for
    end
  end
end
