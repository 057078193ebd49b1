# frozen_string_literal: true

require 'securerandom'
require_relative '../redisq'
require_relative 'batch'
require_relative 'codecs'

module Redisq
  # What both structures share: the names of keys, and how one reserves.
  class Queue
    MEMORY = 60_000 # ms for which it is known how a lease ended

    # What all who work on a queue must agree on, whatever their language, stands here. Times are in seconds; `rates`
    # are pairs: [[3, 1], [100, 60]] lets out at most 3 batches a second and 100 a minute.
    def initialize(redis, name, codec:, lease: 30, max_attempts: nil, rates: [], dedup_window: 60, prefix: 'redisq',
                   scripts: Scripts.new(redis))
      [prefix, name].each do |part|
        raise InvalidArgument, "#{part.inspect}: give a name without { and }" unless part.b.match?(/\A[^{}]+\z/n)
      end
      @redis = redis
      @scripts = scripts
      @keys = "#{prefix.b}:{#{name.b}}:"
      @codec = codec
      @lease = lease
      @max_attempts = max_attempts || 0
      @rates = rates.flat_map { |limit, per| [limit, ms(per)] }
      @window = ms(dedup_window)
      @memory = @window.zero? ? MEMORY : @window
    end

    # A batch, or nil; with a `timeout` it waits so long for one. With a block the batch is acked after it, and released
    # when the block is left in any other way. `id` is the lease's: reserve with the same one again, after a lost
    # connection, and the same batch comes.
    def reserve(size: self.class::SIZE, lease: @lease, timeout: 0, id: Redisq.id)
      batch = await(timeout) { take(size, ms(lease), id) }
      settle(batch) { yield batch } if batch && block_given?
      batch
    end

    private

    def key(*parts)
      @keys + parts.map { |part| part.to_s.b }.join(':')
    end

    def keys(*names)
      names.map { |name| key(name) }
    end

    def call(script, keys, *arguments)
      @scripts.call("#{self.class::STRUCTURE}/#{script}", keys, arguments)
    end

    def ms(seconds)
      (seconds * 1000).round
    end

    def read(bytes, raw)
      @codec.load(bytes)
    rescue StandardError => e
      raise CodecError.new("#{bytes[0, 100].inspect} cannot be read: #{e.message}", raw)
    end

    def read_all(raw)
      raw.map { |bytes| read(bytes, raw) }
    end

    # Asks until there is something: after each push, when the last empty reply said so, and every 2.5 seconds for the
    # leases that others let run out. All asks have one id, so a lost reply costs nothing.
    def await(timeout)
      finish = now + timeout
      loop do
        retry_in, batch = yield
        left = finish - now
        return batch if batch || left <= 0

        pause = [left, 2.5, *(retry_in.fdiv(1000) if retry_in >= 0)].min
        @redis.blpop(key('wake'), timeout: [pause, 0.002].max.round(3)) if retry_in != 0 # and 0 would wait for ever
      end
    end

    def settle(batch)
      yield
      done = true
    ensure
      done ? ack(batch) : give_up(batch)
    end

    # What the block raised says more than that its lease was lost, or the connection: the lease runs out.
    def give_up(batch)
      release(batch)
    rescue LeaseLost, Redis::BaseError
      nil
    end

    def now
      Process.clock_gettime(Process::CLOCK_MONOTONIC)
    end
  end

  # A new id for one call. It is made before the call, where no retry loop can make another one.
  def self.id
    SecureRandom.hex(16)
  end
end
