# frozen_string_literal: true

module Conformance
  # A string, number or list of a case, made ready to be sent, or to be compared with what a server said.
  module Value
    SLACK = 10_000 # ms

    # What is near the server's clock.
    Clock = Struct.new(:ms) do
      def ===(other)
        (Value.number(other) - ms).abs < SLACK
      end
    end

    # What a regular expression finds itself in.
    Match = Struct.new(:pattern) do
      def ===(other)
        pattern.match?(other.to_s.b)
      end
    end

    # A list of the same elements in any order.
    Unordered = Struct.new(:elements) do
      def ===(other)
        return false unless other.is_a?(Array) && other.size == elements.size

        left = other.dup
        elements.all? do |element|
          place = left.index { |one| Value.same?(element, one) }
          left.delete_at(place) if place
          place
        end
      end
    end

    # `now` is the server's clock in ms.
    def self.read(value, now = 0)
      case value
      when String then value.b
      when Array then expand(value).map { |part| read(part, now) }
      when Hash then object(value, now)
      else value
      end
    end

    # A list with each `repeat` in it replaced by what it stands for.
    def self.expand(list)
      list.flat_map do |part|
        next [part] unless part.is_a?(Hash) && part.key?('repeat')

        (1..part['times']).flat_map { |i| part['repeat'].map { |element| number_strings(element, i.to_s) } }
      end
    end

    def self.same?(expected, got)
      case expected
      when Array
        got.is_a?(Array) && expected.size == got.size && expected.zip(got).all? { |pair| same?(*pair) }
      when Clock, Match, Unordered then expected === got
      else expected == got
      end
    end

    # A score, as Redis writes it or already read.
    def self.number(score)
      infinite = { 'inf' => Float::INFINITY, '-inf' => -Float::INFINITY }
      infinite.fetch(score) { Float(score) }
    end

    def self.object(hash, now)
      case hash.keys
      when ['base64'] then hash['base64'].unpack1('m')
      when ['clock'] then Clock.new(now + hash['clock'])
      when ['unordered'] then Unordered.new(read(hash['unordered'], now))
      when ['match'] then Match.new(Regexp.new(hash['match'].b, Regexp::NOENCODING))
      else raise ArgumentError, "#{hash} stands for nothing that this runner knows"
      end
    end

    def self.number_strings(value, number)
      case value
      when String then value.gsub('#', number)
      when Array then value.map { |part| number_strings(part, number) }
      when Hash then value.transform_values { |part| number_strings(part, number) }
      else value
      end
    end
    private_class_method :object, :number_strings
  end
end
