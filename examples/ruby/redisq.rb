# frozen_string_literal: true

require 'digest'
require 'redis'

# The scripts of redisq, from Ruby. This file is the whole loader; the queues beside it stand on it.
module Redisq
  # In every error that a script answers with; nothing has been written when one comes.
  module Error; end

  class InvalidArgument < ArgumentError; include Error; end
  class LeaseLost < StandardError; include Error; end
  class WrongOrder < StandardError; include Error; end
  class WrongLayout < StandardError; include Error; end

  REFUSALS = {
    'BADARG' => InvalidArgument, 'LEASELOST' => LeaseLost, 'WRONGORDER' => WrongOrder, 'LAYOUT' => WrongLayout
  }.freeze

  # A vendored copy beside this file, or the checkout's own.
  FOLDER = [File.join(__dir__, 'lua'), File.expand_path('../../lua', __dir__)].find { |path| File.directory?(path) }

  # One script. Its header names its keys and arguments in the order in which they are sent, so no list is kept here.
  class Script
    attr_reader :text, :sha, :keys, :arguments

    def initialize(text)
      @text = text
      @sha = Digest::SHA1.hexdigest(text)
      @header = header = text[/\A(?:--.*\n)+/]
      # `{queue}:items:<group>` becomes ["items:", "group"], `{queue}:meta` becomes ["meta", nil].
      @keys = header.scan(/^-- KEYS\S+ +\w+ +\w+ +\{queue\}:(\w*:?)(?:<(\w+)>)?/)
      # The numbers that share an argument have a line each, below it.
      @arguments = header.scan(/^-- ARGV\S+ +(\w+) +(\w+).*\n((?:-- {3,}.*\n)*)/).map do |name, type, below|
        [name.to_sym, type == 'ints' ? below.scan(/^-- +(\w+) +\d+\.\./).flatten.map(&:to_sym) : []]
      end
    end

    # The keys and arguments of a call on the queue whose keys begin with `queue`. `values` has each by its name in the
    # header, an Array where there may be several, and as `once` the id of a call that has one of its own.
    def command(queue, values)
      values = { now: nil, **values } # none: the server's clock
      keys = @keys.map do |noun, name|
        name ? queue + noun + values.fetch(noun == 'once:' ? :once : name.to_sym).to_s.b : queue + noun
      end
      arguments = @arguments.flat_map do |name, fields|
        fields.empty? || values.key?(name) ? values.fetch(name) : values.fetch_values(*fields).join(' ')
      end
      [keys, arguments]
    end

    # The most that an argument may be, or how many of them there may be.
    def limit(name)
      Integer(@header[/^-- (?:ARGV\S+)? +#{name} +(?:\w+ +)?\d+\.\.(\d+)/, 1])
    end
  end

  # A folder of scripts and a client. Strings go in as the bytes that they are, whatever their encoding, beside symbols
  # and numbers, nil is empty; strings come out as bytes.
  class Scripts
    def initialize(redis, folder = FOLDER)
      @redis = redis
      @scripts = Dir.glob('*/*.lua', base: folder).to_h do |path|
        [path.delete_suffix('.lua'), Script.new(File.binread(File.join(folder, path)))]
      end
    end

    # One script, such as "buffer/push".
    def [](name)
      @scripts.fetch(name)
    end

    # When a reply is lost, redis-rb sends the command again by itself, the very same bytes. So what makes a call known
    # to the script, its own id or the lease's, stands in `keys` and `arguments` before this method is called.
    def call(name, keys, arguments)
      script = self[name]
      keys, arguments = [keys, arguments].map { |list| list.map(&:to_s) }
      binary(evalsha(script, keys, arguments))
    rescue Redis::CommandError => e
      code, reason = e.message.b.split(' ', 2)
      raise REFUSALS.key?(code) ? REFUSALS[code].new("#{name}: #{reason.force_encoding(Encoding::UTF_8).scrub}") : e
    end

    # Not the text of every script, wherever an error shows this object.
    def inspect
      "#<#{self.class}: #{@scripts.size} scripts>"
    end

    private

    # Not SCRIPT LOAD and EVALSHA again: between the two the server may forget once more.
    def evalsha(script, keys, arguments)
      @redis.evalsha(script.sha, keys, arguments)
    rescue Redis::CommandError => e
      e.message.start_with?('NOSCRIPT') ? @redis.eval(script.text, keys, arguments) : raise
    end

    def binary(reply)
      case reply
      when Array then reply.map { |part| binary(part) }
      when String then reply.b
      else reply
      end
    end
  end
end
