# frozen_string_literal: true

module Redisq
  # A dead letter that a reserve has made: a batch by its id, or a member by itself (then the rest is nil).
  Buried = Struct.new(:name, :group, :attempts, :reason)

  # The answer of one reserve: a batch; or in how many seconds to ask again (0: at once); or that the lease of that id
  # is over, so that nothing will come under it. `buried` may come with any of them.
  Reserved = Struct.new(:batch, :retry_in, :buried, :ended, keyword_init: true)

  # What a reserve hands out: items of one group, or members of a priority queue.
  class Batch
    # `group` is nil for members; `scores` and `payloads` are nil for items. `raw` has the items as they are stored.
    # `attempts` counts the hand-overs, this one included, `reason` says why it came back last time, or died. `deadline`
    # is the Time by the server's clock at which the lease runs out; of a delayed batch that at which it is due, of a
    # dead letter that of its death.
    attr_reader :id, :group, :items, :scores, :payloads, :attempts, :deadline, :reason, :holder, :raw

    def initialize(id:, items:, raw:, attempts:, deadline:, reason:, holder:, group: nil, scores: nil, payloads: nil)
      @id = id
      @items = items
      @raw = raw
      @attempts = attempts
      @deadline = deadline
      @reason = reason
      @holder = holder
      @group = group
      @scores = scores
      @payloads = payloads
      @failed = {}
    end

    # Marks items: when the batch is acked they are given back, and the others are done. Each is matched to one equal
    # item that is not marked yet. The reason is kept with them.
    def fail(*items, reason: nil)
      items.each do |item|
        place = @items.each_index.find { |i| @items[i] == item && !@failed.key?(i) }
        raise InvalidArgument, "#{item.inspect} is not in the batch, or has been marked" unless place

        @failed[place] = reason.to_s
      end
    end

    # The places of the marked items, from 0, and why.
    def failed
      @failed.sort.to_h
    end
  end
end
