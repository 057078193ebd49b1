# frozen_string_literal: true

module Redisq
  # What a reserve hands out: items of one group, or members of a priority queue.
  class Batch
    # `group` is nil for members, `scores` is nil for items. `raw` has the items as they are stored, `deadline` is the
    # Time by the server's clock at which the lease runs out, `attempts` how often they have been handed out.
    attr_reader :id, :group, :items, :scores, :attempts, :deadline, :raw

    def initialize(id:, items:, raw:, attempts:, deadline:, group: nil, scores: nil)
      @id = id
      @items = items
      @raw = raw
      @attempts = attempts
      @deadline = Time.at(0, deadline, :millisecond)
      @group = group
      @scores = scores
      @failed = []
    end

    # Marks items: when the batch is acked they are given back, and the others are done. Each is matched to one equal
    # item that is not marked yet.
    def fail(*items)
      items.each do |item|
        place = @items.each_index.find { |i| @items[i] == item && !@failed.include?(i) }
        @failed << (place || raise(InvalidArgument, "#{item.inspect} is not in the batch, or has been marked"))
      end
    end

    # The places of the marked items, from 0.
    def failed
      @failed.sort
    end
  end
end
