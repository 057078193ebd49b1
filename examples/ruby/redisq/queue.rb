# frozen_string_literal: true

require 'securerandom'
require 'socket'
require_relative '../redisq'
require_relative 'batch'
require_relative 'codecs'

module Redisq
  NAME = /\A[^{}]+\z/ # braces mark a cluster's hash tag

  # Base class of both structures: how a script is called, and how a batch is waited for and settled.
  class Queue
    MEMORY = 60_000 # ms for which it is known how a lease ended, where dedup_window is 0

    # What all who work on a queue must agree on, whatever their language, stands here. Times are in seconds; `rates`
    # are pairs: [[3, 1], [100, 60]] lets out at most 3 batches a second and 100 a minute. `on_buried` is called with
    # each `Buried` that a `reserve` of this process has made.
    def initialize(redis, name, codec:, lease: 30, max_attempts: nil, max_dead: 10_000, rates: [], dedup_window: 60,
                   prefix: 'redisq', on_buried: nil, scripts: Scripts.new(redis))
      @redis = redis
      @scripts = scripts
      @prefix = "#{Redisq.name_bytes(prefix)}:{#{Redisq.name_bytes(name)}}:"
      @codec = codec
      @lease = lease
      @on_buried = on_buried
      window = ms(dedup_window)
      @settings = { window: window, max_attempts: max_attempts || 0, max_dead: max_dead || 0,
                    rates: rates.flat_map { |limit, per| [limit, ms(per)] } }
      @memory = window.zero? ? MEMORY : window
    end

    # A batch, or nil; with a `timeout` it waits so long for one. With a block the batch is acked after it, and released
    # when the block is left in any other way. `id` is the lease's: reserve with the same one again, after a lost
    # connection, and the same batch comes while it is held. Takes what `reserve_once` takes.
    def reserve(timeout: 0, id: Redisq.id, **options)
      batch = await(timeout) { reserve_once(id: id, **options) }
      settle(batch) { yield batch } if batch && block_given?
      batch
    end

    # One call of the script, as a `Reserved`: for a loop of your own. A batch has at most `max_bytes`, and at least one
    # item. `holder` is shown to people.
    def reserve_once(size: self.class::SIZE, max_bytes: nil, lease: @lease, id: Redisq.id, holder: Redisq.holder)
      event, *rest = call('reserve', id: id, size: size, max_bytes: max_bytes || 0, lease: ms(lease), holder: holder,
                                     window: @memory)
      reserved = { retry_in: 0.0, buried: [], ended: event == 'ended' }
      Reserved.new(**reserved, **read_event(event, rest, id, holder))
    end

    # Settles a batch, but for the items marked with `fail`, which come back after `delay`. How many are done.
    def ack(batch, delay: 0)
      call('ack', id: batch.id, delay: ms(delay), window: @memory, **failures(batch.failed))
    end

    # Gives a batch back, whole. Without `count` this hand-over is no attempt. How many items are given back.
    def release(batch, delay: 0, count: true, reason: nil)
      call('release', id: batch.id, delay: ms(delay), window: @memory, attempt: count ? 'count' : 'forget',
                      reason: reason)
    end

    # A permanent failure: the batch is a dead letter now. How many items that is.
    def bury(batch, reason: nil)
      call('bury', id: batch.id, window: @memory, reason: reason)
    end

    # Keeps a batch longer. (The script is `extend`; Ruby has given that name away.) Until when.
    def renew(batch, lease: @lease)
      time(call('extend', id: batch.id, lease: ms(lease)))
    end

    # Hands nothing out, to any client in any language, for so many seconds or until `resume`. Pushes, acks and releases
    # go on.
    def pause(seconds = nil, reason: nil, token: Redisq.id)
      call('pause', once: token, duration: duration(seconds), reason: reason)
      nil
    end

    # Ends the pause and wakes a worker that waits. Whether there was one.
    def resume(token: Redisq.id)
      call('resume', once: token) == 1
    end

    # Runs any script of this structure, with what its header names, and gives the reply as it is. What the queue was
    # made with needs no repeating: `call('purge', limit: 100, cursor: 0)`.
    def call(script, **values)
      @scripts.call(name_of(script), *@scripts[name_of(script)].command(@prefix, { **@settings, **values }))
    end

    # The same call for a MULTI or a pipeline of your own: `multi.eval(*queue.command('push', ...))`. There an EVALSHA
    # that the server has forgotten cannot be tried again.
    def command(script, **values)
      found = @scripts[name_of(script)]
      [found.text, *found.command(@prefix, { **@settings, **values })]
    end

    # The most that an argument of a script may be, or how many of them there may be.
    def limit(script, argument)
      @scripts[name_of(script)].limit(argument)
    end

    private

    def name_of(script)
      "#{self.class::STRUCTURE}/#{script}"
    end

    def ms(seconds)
      (seconds * 1000).round
    end

    # Of a pause, in ms; 0 has no end.
    def duration(seconds)
      return 0 if seconds.nil?

      ms(seconds).tap do |found|
        raise InvalidArgument, "seconds is #{seconds.inspect}: give more, or nil for no end" unless found.positive?
      end
    end

    # None is 0 or -1.
    def time(ms)
      Time.at(0, ms, :millisecond) if ms.positive?
    end

    # Nearly always UTF-8; other bytes stay as they are, and go back so.
    def text(bytes)
      bytes.dup.force_encoding(Encoding::UTF_8)
    end

    def read(bytes, raw, codec = @codec)
      codec.load(bytes)
    rescue StandardError => e
      raise CodecError.new("#{bytes[0, 100].inspect} cannot be read: #{e.message}", raw)
    end

    # Asks until there is something: after each push, when the last reply said so, and every 2.5 seconds for what sends
    # no wake-up. All asks have one id, so a lost reply costs nothing.
    def await(timeout)
      finish = now + timeout
      loop do
        reserved = yield
        reserved.buried.each { |one| @on_buried&.call(one) }
        left = finish - now
        return reserved.batch if reserved.batch || reserved.ended
        next if reserved.retry_in.zero? # as after a burial, however little time is left
        return if left <= 0

        # BLPOP takes 0 forever, and Redis 6.2 takes 0.001 for 0.
        @redis.blpop("#{@prefix}wake", timeout: [left, reserved.retry_in, 2.5].min.clamp(0.002, 2.5).round(3))
      end
    end

    def settle(batch)
      yield
      done = true
    rescue Exception => e # rubocop:disable Lint/RescueException
      reason = "#{e.class}: #{e.message}"
      raise
    ensure
      done ? ack(batch) : give_up(batch, reason)
    end

    # What the block raised says more than that its lease was lost, or the connection: the lease runs out.
    def give_up(batch, reason)
      release(batch, reason: reason)
    rescue LeaseLost, Redis::BaseError
      nil
    end

    # Puts names to a stats reply.
    def name_stats(names, reply)
      stats = names.zip(reply).to_h
      ends, _, reason = stats.delete(:pause).partition(' ')
      stats.merge(next_expiry: time(stats[:next_expiry]), paused: !ends.empty?, pause_reason: text(reason).scrub,
                  paused_until: time(ends.to_i))
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end
  end

  # A name of a queue, or a prefix, as it goes into keys.
  def self.name_bytes(name)
    raise InvalidArgument, "#{name.inspect}: give a name without { and }" unless name.b.match?(NAME)

    name.b
  end

  # A new id for one call. It is made before the call, where no retry loop can make another one.
  #
  # SecureRandom asks the operating system each time (Random.urandom). The state of a generator of our own could be
  # copied, by a fork or by a snapshot that is restored more than once, and two processes with the same ids would lose
  # each other's pushes.
  def self.id
    SecureRandom.hex(16)
  end

  # A queue as `queues` finds it. `kind` is "buffer", or the order of a priority queue, "fifo" or "score".
  QueueInfo = Struct.new(:name, :kind, :layout)

  # The queues of a server, by name; one that was emptied for seven days more. Of a cluster ask each master. The scan
  # does not hold up the server.
  def self.queues(redis, prefix: 'redisq')
    start = "#{name_bytes(prefix)}:{"
    pattern = "#{start.gsub(/[*?\[\]\\]/) { |special| "\\#{special}" }}*}:meta"
    keys = redis.scan_each(match: pattern, type: 'hash', count: 1000).uniq.map(&:b).sort
    marks = keys.each_slice(1000).flat_map do |some|
      redis.pipelined { |pipe| some.each { |key| pipe.hget(key, 'queue') } }
    end
    keys.zip(marks).filter_map do |key, mark|
      name = key.delete_prefix(start).delete_suffix('}:meta')
      layout, kind = mark.to_s.b.match(/\A(\d+) (buffer|fifo|score)\z/)&.captures
      QueueInfo.new(name.force_encoding(Encoding::UTF_8), kind, Integer(layout)) if layout && name.match?(NAME)
    end
  end

  # Who holds a lease, for people: host and process. Asked each time, because a child after a fork is somebody else.
  def self.holder
    "#{Socket.gethostname}:#{Process.pid}"
  end
end
