# frozen_string_literal: true

require_relative 'value'

module Conformance
  # All keys of a server: name => Key.
  class Keyspace
    # `ttl` is in ms, -1 for none.
    Key = Struct.new(:type, :value, :ttl) do
      def same?(got)
        type == got.type && Value.same?(value, got.value) && lives?(got.ttl)
      end

      private

      def lives?(left)
        left.negative? == ttl.negative? && (left - ttl).abs < Value::SLACK
      end
    end

    READ = {
      'string' => ->(name) { ['GET', name] },
      'list' => ->(name) { ['LRANGE', name, 0, -1] },
      'zset' => ->(name) { ['ZRANGE', name, 0, -1, 'WITHSCORES'] },
      'hash' => ->(name) { ['HGETALL', name] },
      'set' => ->(name) { ['SMEMBERS', name] }
    }.freeze
    DUMP = ->(name) { ['DUMP', name] } # no script makes another type, but it may find one, and must leave it alone

    # As a server has it.
    def self.of(redis)
      new(redis.call('KEYS', '*').to_h do |name|
        type = redis.call('TYPE', name)
        value = redis.call(*READ.fetch(type, DUMP).call(name))
        value = value.to_a.flatten unless value.is_a?(String) # pairs are a flat list, a list of pairs or a Hash
        [name.b, Key.new(type, comparable(type, Value.read(value)), redis.call('PTTL', name))]
      end)
    end

    # Scores as numbers, and fields and members of a set in order.
    def self.comparable(type, value)
      case type
      when 'zset' then value.each_slice(2).map { |name, at| [name, at.is_a?(Struct) ? at : Value.number(at)] }
      when 'hash' then value.each_slice(2).sort_by(&:first)
      when 'set' then value.sort
      else value
      end
    end

    attr_reader :keys

    def initialize(keys)
      @keys = keys
    end

    # This one, as a case's `then` changes it.
    def changed(list, now)
      Keyspace.new(Value.expand(list).each_with_object(keys.dup) do |key, found|
        name = Value.read(key['key'])
        next found.delete(name) if key['type'] == 'none'

        value = Keyspace.comparable(key['type'], Value.read(key['value'], now))
        found[name] = Key.new(key['type'], value, key.fetch('ttl', -1))
      end)
    end

    # One line for each key that is not as expected here.
    def differences(got)
      (keys.keys | got.keys.keys).sort.filter_map do |name|
        expected, found = keys[name], got.keys[name]
        next if expected && found && expected.same?(found)

        "#{name.inspect}: #{found.to_a.inspect}, expected #{expected.to_a.inspect}"
      end
    end
  end
end
