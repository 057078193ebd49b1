# frozen_string_literal: true

# Pushes to a queue that Node and Python push to, or works on it beside them: what tests/languages/test_interop.py starts and
# kills.
#
#   ruby interop.rb SOCKET QUEUE buffer|priority push|work|pause|resume|wait COUNT SEED
#
# A worker prints `BEGIN <items>` before it acks these and `DONE <how many>` after it, and goes on until its input ends.
# Who waits prints why the queue is paused, waits for a batch, woken by nothing but a wake-up, and prints its items.

require_relative 'redis_buffer'
require_relative 'redis_priority_queue'

# One process among those that share the queue.
class Participant
  SIZES = (1..50).freeze
  SHARED = { lease: 2, dedup_window: 600 }.freeze # longer than a test runs: it reads there how each lease ended

  def initialize(redis, name, structure, seed)
    @redis = redis
    @random = Random.new(seed)
    @buffer = RedisBuffer.new(redis, name, **SHARED) if structure == 'buffer'
    @queue = @buffer || RedisPriorityQueue.new(redis, name, order: 'fifo', **SHARED)
  end

  def push(count)
    numbers = (0...count).to_a
    until numbers.empty?
      some = numbers.shift(@random.rand(SIZES))
      if @buffer
        @buffer.push(*some.map { |n| { from: 'ruby', n: n } }, group: "g#{@random.rand(10)}")
      else
        @queue.add_all(some.map { |n| ["ruby-#{n}", n % 7, { n: n }] })
      end
    end
  end

  def work(input)
    ended = false
    Thread.new { input.read && ended = true }
    until ended
      batch = @queue.reserve(size: @random.rand(SIZES), timeout: 0.5)
      settle(batch) if batch
    end
  end

  def pause
    @queue.pause(reason: 'ruby: é')
  end

  def resume
    say(@queue.resume)
  end

  def wait
    say(@queue.stats[:pause_reason])
    @redis.define_singleton_method(:blpop) { |key, **| super(key, timeout: 60) or raise 'no wake-up came' }
    say(::JSON.generate(@queue.reserve(timeout: 60).items))
  end

  private

  def settle(batch)
    check(batch) unless @buffer
    chance = @random.rand
    if chance < 0.1
      held { @queue.release(batch, count: chance < 0.05, reason: 'ruby') }
    elsif chance >= 0.15
      fails = chance < 0.25 && batch.items.size > 1
      batch.fail(batch.items.first, reason: 'ruby') if fails
      say("BEGIN #{::JSON.generate(fails ? batch.items.drop(1) : batch.items)}")
      say("DONE #{held { @queue.ack(batch) }}")
    end # else it is left to its lease, as if this process had died
  end

  def check(batch)
    numbers = batch.items.map { |member| { 'n' => Integer(member[/\d+/]) } }
    raise "#{batch.items} have #{batch.payloads}" unless batch.payloads == numbers
  end

  # How many were settled: none, if this process was stopped for longer than the lease.
  def held
    yield
  rescue Redisq::LeaseLost
    0
  end

  def say(line)
    $stdout.puts(line)
    $stdout.flush
  end
end

if $PROGRAM_NAME == __FILE__
  socket, name, structure, role, count, seed = ARGV
  unless %w[buffer priority].include?(structure) && %w[push work pause resume wait].include?(role) && seed
    abort "usage: ruby #{$PROGRAM_NAME} SOCKET QUEUE buffer|priority push|work|pause|resume|wait COUNT SEED"
  end
  participant = Participant.new(Redis.new(path: socket), name, structure, Integer(seed))
  case role
  when 'push' then participant.push(Integer(count))
  when 'work' then participant.work($stdin)
  else participant.public_send(role)
  end
end
