# frozen_string_literal: true

require 'json'

# How an item becomes the bytes that Redis keeps, and comes back: anything with `dump` and `load` will do.
module Redisq
  # Stored bytes that cannot be read. `raw` is all that the call took, as bytes, so that nothing is lost.
  class CodecError < StandardError
    include Error
    attr_reader :raw

    def initialize(message, raw)
      super(message)
      @raw = raw
    end
  end

  # Canonical JSON, as Python's `redisq.JSON` writes it: keys sorted, no spaces, UTF-8, no NaN. The same value has the
  # same bytes from both, but for floats that either writes with an exponent: 1.0e+16 here, 1e+16 there.
  module JSON
    DEPTH = { max_nesting: 1_000 }.freeze # Python's; Ruby's own limit is 100
    PAIR = /\\u[dD][89abAB]\h\h\\u[dD][c-fC-F]\h\h/ # how a character past U+FFFF may be written
    HALF = /\\u[dD][89a-fA-F]/ # a surrogate's escape

    def self.dump(item)
      ::JSON.generate(sorted(item), DEPTH).b
    end

    def self.load(bytes)
      # No string of Ruby's can hold one, and Ruby's parser may make another character of it.
      raise EncodingError, 'it has a lone surrogate' if lone_surrogate?(bytes)

      ::JSON.parse(bytes, DEPTH)
    end

    def self.lone_surrogate?(bytes)
      bytes.match?(HALF) && bytes.gsub(/\\\\|#{PAIR}/, '').match?(HALF)
    end

    def self.sorted(value)
      case value
      when Hash then value.to_h { |key, inner| [key.to_s, sorted(inner)] }.sort.to_h
      when Array then value.map { |inner| sorted(inner) }
      else value
      end
    end
    private_class_method :lone_surrogate?, :sorted
  end

  # Strings as UTF-8, Python's `redisq.TEXT`. Symbols and integers become strings, as redis-rb makes of them.
  module TEXT
    def self.dump(item)
      case item
      when String then item.encoding == Encoding::BINARY ? load(item).b : item.encode(Encoding::UTF_8).b
      when Symbol, Integer then item.to_s.b
      else raise InvalidArgument, "#{item.inspect} is no text"
      end
    end

    def self.load(bytes)
      text = bytes.dup.force_encoding(Encoding::UTF_8)
      text.valid_encoding? ? text : raise(EncodingError, "#{bytes.inspect} is not UTF-8")
    end
  end

  # Bytes as they are, Python's `redisq.BYTES`.
  module BYTES
    def self.dump(item)
      item.b
    end

    def self.load(bytes)
      bytes
    end
  end
end
